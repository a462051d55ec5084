//! One netlink request and its answers.

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use thiserror::Error;

use crate::support::refusal::{Asked, told};

/// Why a request failed.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The socket failed.
    #[error("the netlink socket failed while it {doing}: {}", told(Asked::Netlink, .source))]
    Socket {
        /// The operation.
        doing: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("the kernel refused a netlink request: {}", told(Asked::Netlink, .0))]
    Refused(#[source] io::Error),
    /// A message of the kernel does not have the documented form.
    #[error("a netlink message of the kernel cannot be read: {0}")]
    Decode(#[from] DecodeError),
}

/// A netlink socket to the kernel, in the network namespace in which it was opened.
pub struct Exchange {
    socket: Socket,
    sequence_number: u32,
}

impl Exchange {
    /// Opens a socket of a netlink protocol in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's error if it gives no socket.
    pub fn open(protocol: isize) -> Result<Self, ExchangeError> {
        let failed = |source| ExchangeError::Socket { doing: "was opened", source };
        let mut socket = Socket::new(protocol).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket, sequence_number: 0 })
    }

    /// Sends a request and returns the payloads of all its answers, undecoded. The caller passes over
    /// payloads that it cannot decode, because new kernels send some that no library knows.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn request(
        &mut self,
        message: &(impl NetlinkSerializable + Clone),
        flags: u16,
    ) -> Result<Vec<Vec<u8>>, ExchangeError> {
        self.sequence_number += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence_number;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message.clone()));
        request.finalize();
        let mut octets = vec![0; request.buffer_len()];
        request.serialize(&mut octets);
        let failed = |doing| move |source| ExchangeError::Socket { doing, source };
        self.socket.send(&octets, 0).map_err(failed("sent a request"))?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(failed("received an answer"))?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest)?;
                rest =
                    rest.get(usize::try_from(message.length()).map_or(usize::MAX, aligned)..).unwrap_or(&[]);
                match message.message_type() {
                    _ if message.sequence_number() != self.sequence_number => {}
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => match refusal(message.payload()) {
                        None => return Ok(answers),
                        Some(source) => return Err(ExchangeError::Refused(source)),
                    },
                    _ => answers.push(message.payload().to_vec()),
                }
            }
        }
    }
}

/// Netlink messages start at multiples of four octets.
fn aligned(octets: usize) -> usize {
    octets.next_multiple_of(4)
}

/// The error in an `NLMSG_ERROR` payload; `None` for an acknowledgement.
fn refusal(payload: &[u8]) -> Option<io::Error> {
    let code = payload.first_chunk().map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}
