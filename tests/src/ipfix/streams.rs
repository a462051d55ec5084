//! Collectors that read streams, over TCP or TLS, as it suits a test.

use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::LIMIT;

/// The next connection.
///
/// # Errors
/// When none comes.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let begin = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(LIMIT))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        ensure!(begin.elapsed() < LIMIT, "nobody connects");
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// Everything up to the end of a stream.
///
/// # Errors
/// When it breaks.
pub fn read_to_end(stream: &mut impl std::io::Read) -> Result<Vec<u8>> {
    let mut octets = Vec::new();
    stream.read_to_end(&mut octets)?;
    Ok(octets)
}

/// Reads a TLS stream to its end; an error says why the client was not let in.
///
/// # Errors
/// When the client is not let in, or the stream ends without its end being announced.
pub fn read_tls(stream: TcpStream, config: Arc<ServerConfig>) -> Result<Vec<u8>> {
    let mut tls = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut octets = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match tls.read(&mut piece) {
            Ok(0) => return Ok(octets),
            Ok(count) => octets.extend_from_slice(piece.get(..count).context("a piece")?),
            Err(error) => bail!("{error}"),
        }
    }
}
