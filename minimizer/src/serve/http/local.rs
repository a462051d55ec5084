//! Which user of this host asks at a loopback address: the kernel lists the owner of every connection.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// The kernel's number for the state of an established connection.
const ESTABLISHED: &str = "01";

/// The TCP connections of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Connections {
    ipv4: Option<Mutex<File>>,
    ipv6: Option<Mutex<File>>,
}

impl Connections {
    /// Those of the namespace of this thread, whichever thread asks later. Where `/proc` does not show them, nobody is known.
    pub fn of_this_namespace() -> Self {
        let open = |name: &str| File::open(format!("/proc/thread-self/net/{name}")).ok().map(Mutex::new);
        Self { ipv4: open("tcp"), ipv6: open("tcp6") }
    }

    /// The user at the other end of a connection from `peer` to `here`, which are both on this host.
    pub fn user(&self, peer: SocketAddr, here: SocketAddr) -> Option<u32> {
        let [peer_ip, here_ip] = [peer, here].map(|address| address.ip().to_canonical());
        let place = |ip, port| format!("{}:{port:04X}", hexadecimal(ip));
        // An IPv4 address can belong to a socket of IPv6.
        let mapped = |ip| match ip {
            IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
            ip @ IpAddr::V6(_) => ip,
        };
        let ipv4 = (place(peer_ip, peer.port()), place(here_ip, here.port()));
        let ipv6 = (place(mapped(peer_ip), peer.port()), place(mapped(here_ip), here.port()));
        let found = if peer_ip.is_ipv4() { user_in(self.ipv4.as_ref(), &ipv4) } else { None };
        found.or_else(|| user_in(self.ipv6.as_ref(), &ipv6))
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
        let is_it = fields.next()? == local && fields.next()? == remote && fields.next()? == ESTABLISHED;
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
        let connections = Connections::of_this_namespace();
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
