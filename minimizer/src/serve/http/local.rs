//! Which user of this host asks at a loopback address: the kernel lists the owner of every connection.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The kernel's number for the state of an established connection.
const ESTABLISHED: u8 = 1;

/// The TCP connections of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Connections {
    /// Finds one connection among however many.
    diagnosis: Option<Mutex<Socket>>,
    /// All connections, in text, for kernels without it.
    ipv4: Option<Mutex<File>>,
    ipv6: Option<Mutex<File>>,
}

impl Connections {
    /// Those of the namespace of this thread, whichever thread asks later. Where `/proc` does not show them, nobody is known.
    pub fn of_this_namespace() -> Self {
        let open = |name: &str| File::open(format!("/proc/thread-self/net/{name}")).ok().map(Mutex::new);
        Self { diagnosis: diagnosis().ok().map(Mutex::new), ipv4: open("tcp"), ipv6: open("tcp6") }
    }

    /// The user at the other end of a connection from `peer` to `here`, which are both on this host.
    pub fn user(&self, peer: SocketAddr, here: SocketAddr) -> Option<u32> {
        let [peer_ip, here_ip] = [peer, here].map(|address| address.ip().to_canonical());
        // An IPv4 address can belong to a socket of IPv6.
        let mapped = |ip| match ip {
            IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
            ip @ IpAddr::V6(_) => ip,
        };
        let ends = [(peer_ip, here_ip), (mapped(peer_ip), mapped(here_ip))];
        let asked = ends.map(|(local, remote)| Question::new((local, peer.port()), (remote, here.port())));
        if let Some(user) =
            self.diagnosis.as_ref().and_then(|socket| asked.iter().find_map(|one| one.ask(socket)))
        {
            return Some(user);
        }
        let place = |ip, port| format!("{}:{port:04X}", hexadecimal(ip));
        let ipv4 = (place(peer_ip, peer.port()), place(here_ip, here.port()));
        let ipv6 = (place(mapped(peer_ip), peer.port()), place(mapped(here_ip), here.port()));
        let found = if peer_ip.is_ipv4() { user_in(self.ipv4.as_ref(), &ipv4) } else { None };
        found.or_else(|| user_in(self.ipv6.as_ref(), &ipv6))
    }
}

/// A socket to the kernel, whose answer is there when a request is sent: nothing is ever waited for.
fn diagnosis() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// The two ends of a connection, as one of them sees it: `inet_diag_sockid` of linux/inet_diag.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Ends {
    /// Big-endian, local and remote.
    ports: [[u8; 2]; 2],
    /// The first four octets for IPv4, local and remote.
    addresses: [[u8; 16]; 2],
    interface: u32,
    /// All bits: whichever socket it is.
    cookie: [u32; 2],
}

/// A request for one socket: `nlmsghdr` and `inet_diag_req_v2`.
#[derive(Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Question {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    sender: u32,
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    ends: Ends,
}

/// The answer: `nlmsghdr` and `inet_diag_msg`. What does not follow is not asked for.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Answer {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    receiver: u32,
    family: u8,
    state: u8,
    timer: u8,
    retransmissions: u8,
    ends: Ends,
    expires: u32,
    queues: [u32; 2],
    user: u32,
}

impl Question {
    /// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
    const KIND: u16 = 20;

    fn new(local: (IpAddr, u16), remote: (IpAddr, u16)) -> Self {
        let octets = |ip| match ip {
            IpAddr::V4(ip) => {
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&ip.octets());
                octets
            }
            IpAddr::V6(ip) => ip.octets(),
        };
        let family = if local.0.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        Self {
            length: u32::try_from(size_of::<Self>()).unwrap_or(0),
            kind: Self::KIND,
            flags: u16::try_from(libc::NLM_F_REQUEST).unwrap_or(0),
            sequence: 0,
            sender: 0,
            family: u8::try_from(family).unwrap_or(0),
            protocol: u8::try_from(libc::IPPROTO_TCP).unwrap_or(0),
            extensions: 0,
            padding: 0,
            states: u32::MAX,
            ends: Ends {
                ports: [local.1, remote.1].map(u16::to_be_bytes),
                addresses: [local.0, remote.0].map(octets),
                interface: 0,
                cookie: [u32::MAX; 2],
            },
        }
    }

    /// The user of that socket, if its connection is established. The kernel also answers that there is none.
    fn ask(&self, socket: &Mutex<Socket>) -> Option<u32> {
        let socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.send(self.as_bytes(), 0).ok()?;
        let mut answer = Vec::with_capacity(4096);
        socket.recv(&mut answer, 0).ok()?;
        let (answer, _) = Answer::read_from_prefix(&answer).ok()?;
        let same = answer.ends.ports == self.ends.ports && answer.ends.addresses == self.ends.addresses;
        (answer.kind == Self::KIND && answer.state == ESTABLISHED && same).then_some(answer.user)
    }
}

/// The user of the socket whose local and remote address are these.
fn user_in(table: Option<&Mutex<File>>, (local, remote): &(String, String)) -> Option<u32> {
    let mut file = table?.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(0)).ok()?;
    let mut lines = BufReader::new(&mut *file).lines();
    lines.find_map(|line| {
        let line = line.ok()?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        // A socket that is closed already counts as the superuser's.
        let is_it = fields.next()? == local
            && fields.next()? == remote
            && fields.next()? == format!("{ESTABLISHED:02X}");
        fields.nth(3).filter(|_| is_it)?.parse().ok()
    })
}

/// An address as the kernel writes it there: words of four octets, each as a number of this machine.
fn hexadecimal(ip: IpAddr) -> String {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (words, _) = octets.as_chunks::<4>();
    words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::Connections;

    #[test]
    fn who_asks_is_the_owner_of_the_socket_while_it_is_open() {
        let both = Connections::of_this_namespace();
        let by_text = Connections { diagnosis: None, ..Connections::of_this_namespace() };
        let by_diagnosis = Connections { ipv4: None, ipv6: None, ..Connections::of_this_namespace() };
        [both, by_text, by_diagnosis].iter().for_each(finds_the_owner);
    }

    fn finds_the_owner(connections: &Connections) {
        let user = rustix::process::geteuid().as_raw();
        for (listens, asks) in [
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::]", "127.0.0.1"),
            ("[::]", "[::ffff:127.0.0.1]"),
        ] {
            let listener = TcpListener::bind(format!("{listens}:0")).expect("a free port");
            let port = listener.local_addr().expect("has one").port();
            let client = TcpStream::connect(format!("{asks}:{port}")).expect("is answered");
            let (server, peer) = listener.accept().expect("came");
            let here = server.local_addr().expect("has one");
            assert_eq!(connections.user(peer, here), Some(user), "{listens} {asks}");
            assert_eq!(connections.user(here, here), None);
            drop(client);
            assert_eq!(connections.user(peer, here), None, "a closed socket has no owner");
        }
    }
}
