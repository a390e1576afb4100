//! What a line looks like.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::{Format, Level, layer, targets};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn written(level: Level, format: Format) -> String {
    let lines = Lines::default();
    let sink = lines.clone();
    let layer = layer(format, move || sink.clone()).with_filter(targets(level));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!(address = "127.0.0.1:9177", "listening for \"scrapes\"");
        tracing::debug!("a detail");
        tracing::debug!(target: "hyper::proto", "a frame");
    });
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn logfmt_has_time_level_message_and_fields() {
    let text = written(Level::Info, Format::Logfmt);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("ts="), "{text}");
    assert!(text.contains("level=info"), "{text}");
    assert!(text.contains(r#"message="listening for \"scrapes\"""#), "{text}");
    assert!(text.contains("address=127.0.0.1:9177"), "{text}");
    assert!(text.contains("target=serve::log::tests"), "{text}");
}

#[test]
fn json_is_one_object_a_line() {
    let text = written(Level::Info, Format::Json);
    assert_eq!(text.lines().count(), 1, "{text}");
    let object: std::collections::BTreeMap<String, String> = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(object["level"], "INFO");
    assert_eq!(object["message"], "listening for \"scrapes\"");
    assert_eq!(object["address"], "127.0.0.1:9177");
}

#[test]
fn debug_shows_our_details_but_not_the_libraries_frames() {
    let text = written(Level::Debug, Format::Logfmt);
    assert!(text.contains("a detail"), "{text}");
    assert!(!text.contains("a frame"), "{text}");
}
