//! Passwords that wait to be checked: each peer has its turn, so that one that guesses holds up only itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::serve::http::places::Peer;

/// A password that is to be checked.
#[derive(Debug)]
pub struct Question {
    /// What the client says.
    pub password: Zeroizing<Vec<u8>>,
    /// What it is compared with.
    pub hash: String,
    /// Whether they belong together. It is closed when the client has gone.
    pub answer: oneshot::Sender<bool>,
}

/// Questions of all peers. A connection has at most one, so that the number of connections bounds it.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    by_peer: HashMap<Peer, OfPeer>,
    /// The same peers, in the order of their turns.
    turns: VecDeque<Peer>,
    is_over: bool,
}

/// Questions of a peer, the oldest first.
#[derive(Debug, Default)]
struct OfPeer {
    questions: VecDeque<Question>,
    /// Whether its next turn is that of its latest question.
    is_latest_next: bool,
}

impl OfPeer {
    /// Forgets the questions of those who have gone.
    fn tidy(&mut self) {
        self.questions.retain(|question| !question.answer.is_closed());
    }

    /// Takes the oldest question and the latest one in turn. The oldest one alone would let a flood fill the time before
    /// everybody who comes later; the latest one alone would never reach those who came before.
    fn take(&mut self) -> Option<Question> {
        let question =
            if self.is_latest_next { self.questions.pop_back() } else { self.questions.pop_front() };
        self.is_latest_next = !self.is_latest_next;
        question
    }
}

impl Queue {
    /// Adds a question of a peer.
    pub fn ask(&self, peer: Peer, question: Question) {
        let mut waiting = self.waiting();
        if !waiting.by_peer.contains_key(&peer) {
            waiting.turns.push_back(peer);
        }
        let of_peer = waiting.by_peer.entry(peer).or_default();
        // A client can ask and go as often as it likes.
        of_peer.tidy();
        of_peer.questions.push_back(question);
        drop(waiting);
        self.changed.notify_one();
    }

    /// Waits for the next question; `None` when there will be none.
    pub fn next(&self) -> Option<Question> {
        let mut waiting = self.waiting();
        loop {
            if waiting.is_over {
                return None;
            }
            if let Some(question) = waiting.take() {
                return Some(question);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends it.
    pub fn end(&self) {
        self.waiting().is_over = true;
        self.changed.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// A question of the peer whose turn it is.
    fn take(&mut self) -> Option<Question> {
        while let Some(peer) = self.turns.pop_front() {
            let Some(of_peer) = self.by_peer.get_mut(&peer) else { continue };
            of_peer.tidy();
            let question = of_peer.take();
            if of_peer.questions.is_empty() {
                self.by_peer.remove(&peer);
            } else {
                self.turns.push_back(peer);
            }
            if question.is_some() {
                return question;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::sync::oneshot;
    use zeroize::Zeroizing;

    use super::{Question, Queue};
    use crate::serve::http::places::Peer;

    fn ask(queue: &Queue, peer: u8, name: &str) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        let password = Zeroizing::new(Vec::new());
        let peer = Peer::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, peer)));
        queue.ask(peer, Question { password, hash: name.to_owned(), answer });
        answered
    }

    fn next(queue: &Queue) -> String {
        queue.next().expect("there is one").hash
    }

    #[test]
    fn a_peer_that_guesses_holds_up_only_itself() {
        let queue = Queue::default();
        let guesses: Vec<_> = (0..6).map(|guess| ask(&queue, 1, &format!("guess {guess}"))).collect();
        let others: Vec<_> = (2..5).map(|peer| ask(&queue, peer, &format!("peer {peer}"))).collect();
        let order: Vec<_> = (0..9).map(|_| next(&queue)).collect();
        let wanted =
            ["guess 0", "peer 2", "peer 3", "peer 4", "guess 5", "guess 1", "guess 4", "guess 2", "guess 3"];
        assert_eq!(order, wanted);
        drop((guesses, others));
    }

    #[test]
    fn who_has_gone_takes_no_turn() {
        let queue = Queue::default();
        let guesses: Vec<_> = (0..1000).map(|_| ask(&queue, 1, "guess")).collect();
        drop(guesses);
        let _waits = (ask(&queue, 1, "first"), ask(&queue, 2, "second"));
        assert_eq!([next(&queue), next(&queue)], ["first", "second"]);
        assert!(queue.waiting().by_peer.is_empty() && queue.waiting().turns.is_empty());
        queue.end();
        assert!(queue.next().is_none());
    }
}
