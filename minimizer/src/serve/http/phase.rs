//! What a connection is doing, and how long it may take.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Time for the handshake together with the header of the first request, and for the header of each later request from
/// its first octet on.
pub const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Time for making an answer and for the client to take it. A password check may be part of it.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Time between two requests. Scrapes usually follow each other faster.
pub const IDLE_LIMIT: Duration = Duration::from_secs(90);

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// For the rest of a request's header.
    Header,
    /// For the client to take its answer.
    Answer,
    /// For the next request.
    Idle,
}

impl Phase {
    const fn limit(self) -> Duration {
        match self {
            Self::Header => HEADER_LIMIT,
            Self::Answer => ANSWER_LIMIT,
            Self::Idle => IDLE_LIMIT,
        }
    }
}

/// The phase of a connection and when it began, shared by those who change it and the one who watches the time.
#[derive(Clone, Debug)]
pub struct Phases(Arc<watch::Sender<(Phase, Instant)>>);

impl Phases {
    /// The phase of a connection that was just accepted.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new((Phase::Header, Instant::now()))))
    }

    /// Enters a phase; its time begins now.
    pub fn enter(&self, phase: Phase) {
        self.0.send_replace((phase, Instant::now()));
    }

    fn now(&self) -> Phase {
        self.0.borrow().0
    }

    /// Waits until a phase takes too long, and returns that phase.
    pub async fn overrun(&self) -> Phase {
        let mut changes = self.0.subscribe();
        loop {
            let (phase, begin) = *changes.borrow_and_update();
            tokio::select! {
                () = sleep_until(begin + phase.limit()) => return phase,
                // The limit of the next phase may end before that of this one.
                _ = changes.changed() => {}
            }
        }
    }
}

/// A stream whose reads and writes move its connection to the next phase.
pub struct PhasedStream<Stream> {
    stream: Stream,
    phases: Phases,
    /// Whether a part of the answer was written.
    has_written: bool,
}

impl<Stream> PhasedStream<Stream> {
    /// Wraps a stream.
    pub const fn new(stream: Stream, phases: Phases) -> Self {
        Self { stream, phases, has_written: false }
    }
}

impl<Stream: AsyncRead + Unpin> AsyncRead for PhasedStream<Stream> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.phases.now() == Phase::Idle {
            self.phases.enter(Phase::Header);
        }
        read
    }
}

impl<Stream: AsyncWrite + Unpin> AsyncWrite for PhasedStream<Stream> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.has_written = true;
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_written = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        // hyper flushes once it has written the whole answer.
        if flushed.is_ready() && self.has_written && self.phases.now() == Phase::Answer {
            self.has_written = false;
            self.phases.enter(Phase::Idle);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, advance};

    use super::{ANSWER_LIMIT, HEADER_LIMIT, IDLE_LIMIT, Phase, PhasedStream, Phases};

    #[test]
    fn each_phase_has_its_own_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let (mut client, server) = duplex(1024);
            let phases = Phases::new();
            let mut server = PhasedStream::new(server, phases.clone());
            let begin = Instant::now();
            assert_eq!(phases.overrun().await, Phase::Header);
            assert_eq!(begin.elapsed(), HEADER_LIMIT);

            phases.enter(Phase::Answer);
            let begin = Instant::now();
            assert_eq!(phases.overrun().await, Phase::Answer);
            assert_eq!(begin.elapsed(), ANSWER_LIMIT);

            server.write_all(b"answer").await.expect("is written");
            server.flush().await.expect("is flushed");
            let begin = Instant::now();
            assert_eq!(phases.overrun().await, Phase::Idle);
            assert_eq!(begin.elapsed(), IDLE_LIMIT);

            client.write_all(b"GET").await.expect("is written");
            server.read_exact(&mut [0; 1]).await.expect("is read");
            // More octets of the same header do not give it more time.
            advance(Duration::from_secs(9)).await;
            server.read_exact(&mut [0; 2]).await.expect("is read");
            let begin = Instant::now();
            assert_eq!(phases.overrun().await, Phase::Header);
            assert_eq!(begin.elapsed(), HEADER_LIMIT - Duration::from_secs(9));
        });
    }

    #[test]
    fn a_shorter_phase_ends_before_the_one_that_it_follows() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let phases = Phases::new();
            phases.enter(Phase::Idle);
            let begin = Instant::now();
            let answering = async {
                advance(Duration::from_secs(1)).await;
                phases.enter(Phase::Answer);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                phase = phases.overrun() => assert_eq!(phase, Phase::Answer),
                () = answering => {}
            }
            assert_eq!(begin.elapsed(), Duration::from_secs(1) + ANSWER_LIMIT);
        });
    }
}
