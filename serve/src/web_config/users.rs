//! Basic auth (RFC 7617) against bcrypt hashes. A verified pair is remembered, for a hash costs
//! tens of milliseconds and a scraper comes again. It must not know routes.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use crate::limits;

/// Users and their password hashes.
#[derive(Debug, Default)]
pub(crate) struct Users {
    hashes: BTreeMap<String, String>,
    verified: Option<Verified>,
}

impl Users {
    /// Each hash must be bcrypt, as `htpasswd -nB` writes it.
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Result<Self, String> {
        for (user, hash) in &hashes {
            if user.is_empty() || user.contains(':') {
                return Err(format!("basic_auth_users: {user:?} cannot be a user's name"));
            }
            if hash.parse::<bcrypt::HashParts>().is_err() {
                return Err(format!("basic_auth_users: the hash of {user} is not bcrypt"));
            }
        }
        let verified = if hashes.is_empty() { None } else { Some(Verified::new()?) };
        Ok(Self { hashes, verified })
    }

    /// Whether the Authorization header names a user with the right password; anybody may come
    /// when there are no users.
    pub(crate) async fn allow(&self, authorization: Option<&str>) -> bool {
        let Some(verified) = &self.verified else { return true };
        let Some((user, password)) = authorization.and_then(credentials) else { return false };
        let own = self.hashes.get(&user);
        // An unknown user costs as much time as a known one, so that names cannot be guessed by
        // the clock: any hash will do, its result is not looked at.
        let Some(hash) = own.or_else(|| self.hashes.values().next()).cloned() else { return false };
        let tag = verified.tag([&user, &password, &hash]);
        if own.is_some() && verified.knows(&tag) {
            return true;
        }
        let Ok(_permit) = Arc::clone(&verified.checks).acquire_owned().await else { return false };
        let checked =
            tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false));
        let right = checked.await.unwrap_or(false) && own.is_some();
        if right {
            verified.remember(tag);
        }
        right
    }
}

/// User and password of `Basic BASE64(user:password)`.
fn credentials(authorization: &str) -> Option<(String, String)> {
    let (scheme, encoded) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Remembers pairs as keyed digests of length-prefixed fields: no password stays in memory, and
/// no two pairs share an entry (exporter-toolkit's cache had that fault, CVE-2022-46146).
#[derive(Debug)]
struct Verified {
    key: hmac::Key,
    tags: Mutex<HashSet<Vec<u8>>>,
    checks: Arc<Semaphore>,
}

impl Verified {
    fn new() -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "the system gives no random numbers".to_owned())?;
        let checks = Arc::new(Semaphore::new(limits::PASSWORD_CHECKS_MAX));
        Ok(Self { key, tags: Mutex::default(), checks })
    }

    fn tag(&self, fields: [&str; 3]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        for field in fields {
            context.update(&(field.len() as u64).to_le_bytes());
            context.update(field.as_bytes());
        }
        context.sign().as_ref().to_vec()
    }

    fn knows(&self, tag: &[u8]) -> bool {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).contains(tag)
    }

    fn remember(&self, tag: Vec<u8>) {
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        // There are few users; more entries than this can only be a changed file's.
        if tags.len() >= limits::VERIFIED_USERS_MAX {
            tags.clear();
        }
        tags.insert(tag);
    }
}

#[cfg(test)]
mod tests {
    use super::{Users, credentials};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    fn users(pairs: &[(&str, &str)]) -> Users {
        let hash = |(user, password): &(&str, &str)| {
            ((*user).to_owned(), bcrypt::hash(password, 4).unwrap())
        };
        Users::new(pairs.iter().map(hash).collect()).unwrap()
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn malformed_headers_are_no_credentials() {
        for header in ["", "Basic", "Basic !", "Bearer YTpi", &basic("nocolon"), "Basic /w=="] {
            assert_eq!(credentials(header), None, "{header}");
        }
        let pair = credentials(&basic("a:b:c")).unwrap();
        assert_eq!(pair, ("a".to_owned(), "b:c".to_owned()));
    }

    #[tokio::test]
    async fn right_wrong_unknown_and_absent() {
        let users = users(&[("anna", "sesame"), ("bert", "")]);
        // Twice: the second time from memory.
        for _ in 0..2 {
            assert!(users.allow(Some(&basic("anna:sesame"))).await);
            assert!(users.allow(Some(&basic("bert:"))).await);
            assert!(!users.allow(Some(&basic("anna:wrong"))).await);
            assert!(!users.allow(Some(&basic("carl:sesame"))).await);
            assert!(!users.allow(None).await);
        }
    }

    #[tokio::test]
    async fn an_unknown_user_with_the_password_of_the_first_is_not_let_in_from_memory() {
        let users = users(&[("anna", "sesame")]);
        assert!(!users.allow(Some(&basic("carl:sesame"))).await);
        assert!(users.allow(Some(&basic("anna:sesame"))).await);
        assert!(!users.allow(Some(&basic("carl:sesame"))).await);
        // The same bytes, cut elsewhere.
        assert!(!users.allow(Some(&basic("ann:asesame"))).await);
    }

    #[test]
    fn what_is_no_bcrypt_hash_is_refused() {
        let error = Users::new([("anna".into(), "sesame".into())].into()).unwrap_err();
        assert_eq!(error, "basic_auth_users: the hash of anna is not bcrypt");
    }
}
