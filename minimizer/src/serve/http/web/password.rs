//! Passwords. A bcrypt check is slow by design, so one thread of low priority makes them one by one, and their results
//! are remembered.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::WebConfigError;
use super::queue::{Question, Queue};
use crate::serve::http::places::Peer;

/// Longest time that a password waits to be checked; then the client is told to come back.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Admissions that are remembered: more than a configuration has users.
const REMEMBERED_MAX: usize = 1024;
/// Refusals that are remembered: a client with a wrong password asks again and again.
const REFUSED_MAX: usize = 4096;
/// How far the thread stands behind the others.
const NICENESS: i32 = 10;
/// Length of the key of the digests.
const KEY_OCTETS: usize = 32;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The user is known and the password is right.
    Admitted,
    /// User or password are wrong or absent.
    Refused,
    /// It waited too long to be checked: ask again later.
    Busy,
}

/// Checks passwords.
#[derive(Debug)]
pub struct Checker {
    queue: Arc<Queue>,
    /// Of this process only: nobody can tell from the digests what was said.
    key: Zeroizing<[u8; KEY_OCTETS]>,
    remembered: Mutex<Remembered>,
}

/// Digests of credentials, by what was said to them.
#[derive(Debug, Default)]
struct Remembered {
    admitted: HashSet<[u8; 32]>,
    refused: HashSet<[u8; 32]>,
}

impl Remembered {
    fn verdict(&self, digest: &[u8; 32]) -> Option<Admission> {
        if self.admitted.contains(digest) {
            Some(Admission::Admitted)
        } else {
            self.refused.contains(digest).then_some(Admission::Refused)
        }
    }

    fn enter(&mut self, digest: [u8; 32], is_admitted: bool) {
        let (set, most) =
            if is_admitted { (&mut self.admitted, REMEMBERED_MAX) } else { (&mut self.refused, REFUSED_MAX) };
        if set.len() >= most {
            set.clear();
        }
        set.insert(digest);
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.queue.end();
    }
}

impl Checker {
    /// Starts the thread. It ends when the checker is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started, or the kernel gives no random numbers.
    pub fn start() -> Result<Self, WebConfigError> {
        let mut key = Zeroizing::new([0; KEY_OCTETS]);
        getrandom::fill(key.as_mut()).map_err(WebConfigError::Random)?;
        let queue = Arc::new(Queue::default());
        start(Arc::clone(&queue)).map_err(WebConfigError::Thread)?;
        Ok(Self { queue, key, remembered: Mutex::default() })
    }

    /// Checks the value of an `Authorization` header, which a peer sent, against the hashes of `users`.
    pub async fn check(
        &self,
        users: &BTreeMap<String, String>,
        peer: Peer,
        authorization: Option<&[u8]>,
    ) -> Admission {
        let Some((user, password)) = authorization.and_then(basic) else { return Admission::Refused };
        let hash = std::str::from_utf8(&user).ok().and_then(|user| users.get(user));
        let digest = self.digest(&user, &password, hash.map_or("", |hash| hash));
        if let Some(verdict) = self.remembered().verdict(&digest) {
            return verdict;
        }
        // For an unknown user some other hash is checked, so that the time of the answer does not tell which users exist.
        let Some(compared) = hash.or_else(|| users.values().next()) else { return Admission::Refused };
        let (answer, answered) = oneshot::channel();
        self.queue.ask(peer, Question { password, hash: compared.clone(), answer });
        let Ok(answered) = timeout(WAIT_MAX, answered).await else { return Admission::Busy };
        // Without an answer the thread has ended, and nothing is known.
        let Ok(is_right) = answered else { return Admission::Refused };
        let is_admitted = is_right && hash.is_some();
        self.remembered().enter(digest, is_admitted);
        if is_admitted { Admission::Admitted } else { Admission::Refused }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A digest of all that a verdict depends on: with another hash of the user it does not hold.
    fn digest(&self, user: &[u8], password: &[u8], hash: &str) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.key.as_slice());
        for part in [user, hash.as_bytes(), password] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

fn start(queue: Arc<Queue>) -> io::Result<()> {
    thread::Builder::new().name("passwords".to_owned()).spawn(move || {
        // The drain must not wait for a password. A refusal changes nothing but the priority.
        let _refused = rustix::process::nice(NICENESS);
        while let Some(Question { password, hash, answer }) = queue.next() {
            let _gone = answer.send(bcrypt::verify(&*password, &hash).unwrap_or(false));
        }
    })?;
    Ok(())
}

/// User and password in the `Basic` scheme (RFC 7617).
fn basic(authorization: &[u8]) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let (scheme, credentials) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(credentials.trim_ascii()).ok()?);
    let colon = decoded.iter().position(|octet| *octet == b':')?;
    Some((decoded[..colon].to_vec(), Zeroizing::new(decoded[colon + 1..].to_vec())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::{Admission, Checker, Peer, REFUSED_MAX, basic};

    fn header(user: &str, password: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into_bytes()
    }

    fn peer(last: u8) -> Peer {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)).into()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    fn users(cost: u32) -> BTreeMap<String, String> {
        let hash = bcrypt::hash("secret:1", cost).expect("a hash");
        [("prometheus".to_owned(), hash)].into()
    }

    #[test]
    fn only_the_right_password_of_a_user_that_exists() {
        let runtime = runtime();
        let checker = Checker::start().expect("a thread");
        let users = users(4);
        for (header, verdict) in [
            (Some(header("prometheus", "secret:1")), Admission::Admitted),
            // The second time it is remembered.
            (Some(header("prometheus", "secret:1")), Admission::Admitted),
            (Some(header("prometheus", "secret:2")), Admission::Refused),
            (Some(header("prometheus", "")), Admission::Refused),
            // The right password of somebody else.
            (Some(header("nobody", "secret:1")), Admission::Refused),
            (Some(header("", "")), Admission::Refused),
            (Some(b"Bearer abc".to_vec()), Admission::Refused),
            (Some(b"Basic !".to_vec()), Admission::Refused),
            (None, Admission::Refused),
        ] {
            let said = runtime.block_on(checker.check(&users, peer(1), header.as_deref()));
            assert_eq!(said, verdict, "{:?}", header.map(String::from_utf8));
        }
        assert_eq!(checker.remembered().admitted.len(), 1);
        assert_eq!(checker.remembered().refused.len(), 4);
        // Another hash of the same password is another admission.
        let changed =
            users.keys().map(|user| (user.clone(), bcrypt::hash("other", 4).expect("a hash"))).collect();
        let said =
            runtime.block_on(checker.check(&changed, peer(1), Some(&header("prometheus", "secret:1"))));
        assert_eq!(said, Admission::Refused);
    }

    #[test]
    fn who_is_right_does_not_wait_for_those_who_guess() {
        let runtime = runtime();
        let checker = Checker::start().expect("a thread");
        // Dear enough that hardly a guess is done when the right ones come.
        let mut users = users(9);
        let hash = users["prometheus"].clone();
        users.insert("grafana".to_owned(), hash);
        runtime.block_on(async {
            let known = header("prometheus", "secret:1");
            assert_eq!(checker.check(&users, peer(1), Some(&known)).await, Admission::Admitted);
            let mut guesses: Vec<_> = (0..200)
                .map(|guess| {
                    let wrong = header("prometheus", &guess.to_string());
                    let (checker, users) = (&checker, &users);
                    Box::pin(async move { checker.check(users, peer(1), Some(&wrong)).await })
                })
                .collect();
            for guess in &mut guesses {
                let polled =
                    std::future::poll_fn(|context| std::task::Poll::Ready(guess.as_mut().poll(context)));
                assert_eq!(polled.await, std::task::Poll::Pending);
            }
            // One that is remembered, from the peer that guesses, and one that is not, from another.
            assert_eq!(checker.check(&users, peer(1), Some(&known)).await, Admission::Admitted);
            let new = header("grafana", "secret:1");
            assert_eq!(checker.check(&users, peer(2), Some(&new)).await, Admission::Admitted);
            assert!(checker.remembered().refused.len() < 100, "all guesses came first");
        });
    }

    #[test]
    fn a_wrong_password_is_checked_once_and_refusals_are_bounded() {
        let runtime = runtime();
        let checker = Checker::start().expect("a thread");
        let users = users(4);
        let wrong = header("prometheus", "wrong");
        assert_eq!(runtime.block_on(checker.check(&users, peer(1), Some(&wrong))), Admission::Refused);
        checker.queue.end();
        let again = checker.check(&users, peer(2), Some(&wrong));
        assert_eq!(runtime.block_on(again), Admission::Refused);
        let mut remembered = checker.remembered();
        for number in 0..REFUSED_MAX * 2 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            remembered.enter(digest, false);
        }
        assert!(remembered.refused.len() <= REFUSED_MAX);
    }

    #[test]
    fn a_password_may_have_colons_and_a_user_may_not() {
        let (user, password) = basic(b"bAsIc YTpiOmM=").expect("is of the scheme");
        assert_eq!((user.as_slice(), password.as_slice()), (&b"a"[..], &b"b:c"[..]));
        assert!(basic(b"Basic").is_none() && basic(b"Basic YQ==").is_none());
    }
}
