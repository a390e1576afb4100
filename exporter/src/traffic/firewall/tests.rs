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
        socket: None,
    };
    let entered = |netns| Firewall::new(&flags(netns)).inside(&["nft", "list"], String::new());
    assert_eq!(
        entered("qrouter-1").words,
        ["nsenter", "--net=/run/netns/qrouter-1", "--", "nft", "list"]
    );
    assert_eq!(entered("/proc/7/ns/net").words[1], "--net=/proc/7/ns/net");
    assert_eq!(step(&["nft", "-f", "-"], "a\n").to_string(), "nft -f - <<'EOF'\na\nEOF");
}

/// A helper that prints something to each of the next so many who connect; `None` never ends.
async fn helped(printed: Option<&'static str>) -> Result<Table, FirewallError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let helper = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        match printed {
            Some(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            None => std::future::pending().await,
        }
    });
    let flags = TrafficFlags {
        firewall: FirewallKind::Iptables,
        netns: None,
        table: String::new(),
        socket: Some(path),
    };
    let wait = if printed.is_some() { Duration::from_mins(1) } else { Duration::from_millis(200) };
    let read = Firewall::new(&flags).read(Instant::now() + wait).await.pop().unwrap();
    helper.abort();
    read
}

#[tokio::test]
async fn a_helper_prints_both_versions_of_ip() {
    let text = "*filter\n[1:100] -A FORWARD -s 10.0.0.2/32 -m comment --comment \"1 10.0.0.2 accounting rule\"\nCOMMIT\n\
                *filter\n[2:200] -A FORWARD -s 2001:db8::1/128 -m comment --comment \"1 2001:db8::1 accounting rule\"\nCOMMIT\n";
    let found = helped(Some(text)).await.unwrap().found;
    let bytes: Vec<u64> = found.rules.iter().map(|rule| rule.bytes).collect();
    assert_eq!(bytes, [100, 200]);
}

#[tokio::test]
async fn a_helper_that_fails_is_not_taken_for_an_empty_firewall() {
    let error = helped(Some("")).await.unwrap_err();
    assert!(matches!(error, FirewallError::Silent { .. }), "{error}");
    let error = helped(Some("*filter\n[1:100] -A FORW")).await.unwrap_err();
    assert!(matches!(error, FirewallError::Iptables(IptablesError::CutOff)), "{error}");
    let error = helped(None).await.unwrap_err();
    assert!(matches!(error, FirewallError::TimedOut { .. }), "{error}");
    let nobody = TrafficFlags {
        firewall: FirewallKind::Iptables,
        netns: None,
        table: String::new(),
        socket: Some("/nonexistent/socket".into()),
    };
    let soon = Instant::now() + Duration::from_mins(1);
    let error = Firewall::new(&nobody).read(soon).await.pop().unwrap().unwrap_err();
    assert!(matches!(error, FirewallError::Socket { .. }), "{error}");
}

#[tokio::test]
async fn one_process_changes_rules_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let soon = || Instant::now() + Duration::from_millis(120);
    let held = lock(&path, soon()).await.unwrap();
    let error = lock(&path, soon()).await.unwrap_err();
    assert!(matches!(error, FirewallError::Held { .. }), "{error}");
    let waiting = tokio::spawn({
        let path = path.clone();
        async move { lock(&path, Instant::now() + Duration::from_mins(1)).await }
    });
    drop(held);
    waiting.await.unwrap().unwrap();
    let error = lock(Path::new("/nonexistent/lock"), soon()).await.unwrap_err();
    assert!(matches!(error, FirewallError::Lock { .. }), "{error}");
}
