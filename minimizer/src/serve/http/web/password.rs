//! Passwords. A bcrypt check is slow by design, so one thread of low priority makes them one by one, and successful ones
//! are remembered.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::WebConfigError;

/// Most passwords that wait for their check. Beyond, a client is told to come back later.
const WAITING_MAX: usize = 16;
/// Most admissions that are remembered: more than any configuration has users.
const REMEMBERED_MAX: usize = 1024;
/// Nice value of the thread.
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
    /// Too many passwords wait for their check: ask again later.
    Busy,
}

/// A password to check.
struct Question {
    password: Zeroizing<Vec<u8>>,
    hash: String,
    answer: oneshot::Sender<bool>,
}

/// Checks passwords, and remembers which were right.
#[derive(Debug)]
pub struct Checker {
    questions: SyncSender<Question>,
    /// Known to this process alone, so that nobody can guess passwords from the digests.
    key: Zeroizing<[u8; KEY_OCTETS]>,
    remembered: Mutex<HashSet<[u8; 32]>>,
}

impl Checker {
    /// Starts the thread. It ends when the checker is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started, or the kernel gives no random numbers.
    pub fn start() -> Result<Self, WebConfigError> {
        let mut key = Zeroizing::new([0; KEY_OCTETS]);
        getrandom::fill(key.as_mut()).map_err(WebConfigError::Random)?;
        let (questions, asked) = sync_channel(WAITING_MAX);
        start(asked).map_err(WebConfigError::Thread)?;
        Ok(Self { questions, key, remembered: Mutex::default() })
    }

    /// Checks the value of an `Authorization` header against the hashes of `users`.
    pub async fn check(&self, users: &BTreeMap<String, String>, authorization: Option<&[u8]>) -> Admission {
        let Some((user, password)) = authorization.and_then(basic) else { return Admission::Refused };
        let hash = std::str::from_utf8(&user).ok().and_then(|user| users.get(user));
        let digest = self.digest(&user, &password, hash.map_or("", |hash| hash));
        if hash.is_some() && self.remembered().contains(&digest) {
            return Admission::Admitted;
        }
        // For an unknown user some other hash is checked, so that the time of the answer does not tell which users exist.
        let Some(compared) = hash.or_else(|| users.values().next()) else { return Admission::Refused };
        let (answer, answered) = oneshot::channel();
        let question = Question { password, hash: compared.clone(), answer };
        match self.questions.try_send(question) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Admission::Busy,
            Err(TrySendError::Disconnected(_)) => return Admission::Refused,
        }
        if answered.await != Ok(true) || hash.is_none() {
            return Admission::Refused;
        }
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest);
        Admission::Admitted
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A digest of everything that an admission depends on. A new hash of the user makes another digest, which is checked
    /// again.
    fn digest(&self, user: &[u8], password: &[u8], hash: &str) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.key.as_slice());
        for part in [user, hash.as_bytes(), password] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

fn start(asked: Receiver<Question>) -> io::Result<()> {
    thread::Builder::new().name("passwords".to_owned()).spawn(move || {
        // The drain must not wait for a password. A refusal changes nothing but the priority.
        let _refused = rustix::process::nice(NICENESS);
        for Question { password, hash, answer } in asked {
            // The client may have left while its password waited.
            if !answer.is_closed() {
                let _gone = answer.send(bcrypt::verify(&*password, &hash).unwrap_or(false));
            }
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

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::{Admission, Checker, WAITING_MAX, basic};

    fn header(user: &str, password: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into_bytes()
    }

    fn users(cost: u32) -> BTreeMap<String, String> {
        let hash = bcrypt::hash("secret:1", cost).expect("a hash");
        [("prometheus".to_owned(), hash)].into()
    }

    #[test]
    fn only_the_right_password_of_a_user_that_exists() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
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
            let said = runtime.block_on(checker.check(&users, header.as_deref()));
            assert_eq!(said, verdict, "{:?}", header.map(String::from_utf8));
        }
        assert_eq!(checker.remembered().len(), 1);
        // Another hash of the same password is another admission.
        let changed =
            users.keys().map(|user| (user.clone(), bcrypt::hash("other", 4).expect("a hash"))).collect();
        let said = runtime.block_on(checker.check(&changed, Some(&header("prometheus", "secret:1"))));
        assert_eq!(said, Admission::Refused);
    }

    #[test]
    fn who_is_remembered_does_not_wait_for_those_who_guess() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let checker = Checker::start().expect("a thread");
        // Dear enough that none of the guesses is done when the last one comes.
        let users = users(10);
        runtime.block_on(async {
            let right = header("prometheus", "secret:1");
            assert_eq!(checker.check(&users, Some(&right)).await, Admission::Admitted);
            let mut guesses: Vec<_> = (0..WAITING_MAX + 8)
                .map(|guess| {
                    let wrong = header("prometheus", &guess.to_string());
                    let (checker, users) = (&checker, &users);
                    Box::pin(async move { checker.check(users, Some(&wrong)).await })
                })
                .collect();
            let mut busy = 0;
            for guess in &mut guesses {
                let polled =
                    std::future::poll_fn(|context| std::task::Poll::Ready(guess.as_mut().poll(context)));
                busy += usize::from(polled.await == std::task::Poll::Ready(Admission::Busy));
            }
            assert!(busy > 0, "nobody was sent away");
            assert_eq!(checker.check(&users, Some(&right)).await, Admission::Admitted);
        });
    }

    #[test]
    fn a_password_may_have_colons_and_a_user_may_not() {
        let (user, password) = basic(b"bAsIc YTpiOmM=").expect("is of the scheme");
        assert_eq!((user.as_slice(), password.as_slice()), (&b"a"[..], &b"b:c"[..]));
        assert!(basic(b"Basic").is_none() && basic(b"Basic YQ==").is_none());
    }
}
