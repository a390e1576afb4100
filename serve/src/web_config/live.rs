//! The web config in force: read again when its files change, at most once a second and only
//! when somebody connects or asks. It must not know what the file says.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Fingerprint, WebConfig, WebConfigError, load};

/// How old what is in force may be.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The web config in force.
#[derive(Debug)]
pub(crate) struct Live {
    current: RwLock<Arc<WebConfig>>,
    source: Option<Source>,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    checked: Instant,
    /// Of the files that were tried last, or what was wrong with them.
    last: Result<Fingerprint, String>,
}

impl Live {
    /// Reads the file, if there is one.
    pub(crate) async fn start(path: Option<PathBuf>) -> Result<Self, WebConfigError> {
        let Some(path) = path else {
            return Ok(Self { current: RwLock::default(), source: None });
        };
        let (config, fingerprint) = read(path.clone()).await?;
        let seen = Mutex::new(Seen { checked: Instant::now(), last: Ok(fingerprint) });
        let current = RwLock::new(Arc::new(config));
        Ok(Self { current, source: Some(Source { path, seen }) })
    }

    /// What is in force now. Files that were changed for the worse leave it as it was, with an
    /// error in the log: a service that nobody can scrape does not help to find the fault.
    pub(crate) async fn current(&self) -> Arc<WebConfig> {
        if let Some(source) = &self.source
            && let Ok(mut seen) = source.seen.try_lock()
            && seen.checked.elapsed() >= CHECK_EVERY
        {
            let result = read(source.path.clone()).await;
            self.take(result, &mut seen);
        }
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, result: Result<(WebConfig, Fingerprint), WebConfigError>, seen: &mut Seen) {
        seen.checked = Instant::now();
        match result {
            Ok((config, fingerprint)) => {
                if seen.last.as_ref() != Ok(&fingerprint) {
                    tracing::info!("web config file and certificates were read again");
                    let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                    *current = Arc::new(config);
                }
                seen.last = Ok(fingerprint);
            }
            Err(error) => {
                let error = error.to_string();
                if seen.last.as_ref() != Err(&error) {
                    tracing::error!(%error, "the changed web config is not used");
                }
                seen.last = Err(error);
            }
        }
    }
}

/// Files may be slow to read, and keys to parse.
async fn read(path: PathBuf) -> Result<(WebConfig, Fingerprint), WebConfigError> {
    let failed = path.clone();
    let read = tokio::task::spawn_blocking(move || load(&path));
    read.await
        .unwrap_or_else(|error| Err(WebConfigError { path: failed, reason: error.to_string() }))
}
