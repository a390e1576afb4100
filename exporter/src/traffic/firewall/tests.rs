//! Programs that end well, badly, never, or print without end.

use std::time::Duration;

use super::*;

fn step(words: &[&str], input: &str) -> Step {
    Step::new(words, input.to_owned())
}

async fn run(words: &[&str], input: &str) -> Result<String, FirewallError> {
    output(&step(words, input), Instant::now() + Duration::from_mins(1)).await
}

#[tokio::test]
async fn what_a_program_prints() {
    assert_eq!(run(&["cat"], "a\nb").await.unwrap(), "a\nb");
    assert_eq!(run(&["true"], &"x".repeat(1 << 20)).await.unwrap(), "");
    let words = run(&["env"], "").await.unwrap();
    assert_eq!(words.lines().count(), 2, "only PATH and LC_ALL: {words}");
}

#[tokio::test]
async fn failures_name_the_program_and_what_it_said() {
    let error = run(&["sh", "-c", "echo not  allowed >&2; exit 3"], "").await.unwrap_err();
    assert!(error.to_string().ends_with("failed: not allowed"), "{error}");
    let error = run(&["sh", "-c", "exit 3"], "").await.unwrap_err();
    assert!(error.to_string().ends_with("failed: exit status: 3"), "{error}");
    let error = run(&["no-such-program"], "").await.unwrap_err();
    assert!(matches!(error, FirewallError::Start { .. }), "{error}");
    assert!(error.to_string().starts_with("no-such-program cannot be started"), "{error}");
}

#[tokio::test]
async fn a_program_that_hangs_is_stopped() {
    let soon = Instant::now() + Duration::from_millis(200);
    let error = output(&step(&["sleep", "3600"], ""), soon).await.unwrap_err();
    assert!(matches!(error, FirewallError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_program_that_prints_without_end_is_stopped() {
    let error = run(&["yes"], "").await.unwrap_err();
    assert!(matches!(error, FirewallError::TooMuch { .. }), "{error}");
    // Complaints without end are cut short, and the program's end is awaited all the same.
    let error = run(&["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1"], "").await;
    let text = error.unwrap_err().to_string();
    assert!(text.len() < 5000, "{} bytes", text.len());
}

#[test]
fn a_namespace_is_entered_by_name_or_path() {
    let flags = |netns: &str| TrafficFlags {
        firewall: FirewallKind::Iptables,
        netns: Some(netns.to_owned()),
        table: String::new(),
    };
    let entered = |netns| Firewall::new(&flags(netns)).inside(&["nft", "list"], String::new());
    assert_eq!(
        entered("qrouter-1").words,
        ["nsenter", "--net=/run/netns/qrouter-1", "--", "nft", "list"]
    );
    assert_eq!(entered("/proc/7/ns/net").words[1], "--net=/proc/7/ns/net");
    assert_eq!(step(&["nft", "-f", "-"], "a\n").to_string(), "nft -f - <<'EOF'\na\nEOF");
}
