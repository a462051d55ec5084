//! A network namespace of the calling thread with one virtual cable, on which only the test sends.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// The sending end.
pub const SENDER: &str = "send0";
/// The receiving end.
pub const RECEIVER: &str = "receive0";
/// Octets of Ethernet, IPv4 and UDP headers.
pub const HEADER_OCTETS: [u64; 3] = [14, 20, 8];

const SENDER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const RECEIVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The cable. Namespace and cable end with the thread, and with the processes that it started.
pub struct Veth(());

impl Veth {
    /// Moves the calling thread to a new namespace and lays the cable.
    ///
    /// # Errors
    /// When the kernel or `ip` refuses.
    pub fn new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        for scope in ["all", "default"] {
            // IPv6 would send discoveries of its own.
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").ok();
        }
        let mac = "02:00:00:00:00:02";
        ip(&format!("link add {SENDER} type veth peer name {RECEIVER} address {mac}"))?;
        ip(&format!("address add {SENDER_ADDRESS}/24 dev {SENDER}"))?;
        for interface in ["lo", SENDER, RECEIVER] {
            ip(&format!("link set dev {interface} up"))?;
        }
        ip(&format!("neighbour add {RECEIVER_ADDRESS} lladdr {mac} dev {SENDER} nud permanent"))?;
        Ok(Self(()))
    }

    /// Sends UDP packets with `payload_octets` of payload.
    ///
    /// # Errors
    /// When the kernel does not take one.
    pub fn send(&self, packets: u64, payload_octets: usize) -> Result<()> {
        let socket = UdpSocket::bind((SENDER_ADDRESS, 0))?;
        let payload = vec![0x55; payload_octets];
        for _ in 0..packets {
            let sent = socket.send_to(&payload, (RECEIVER_ADDRESS, 9))?;
            ensure!(sent == payload_octets, "{sent} octets were sent");
        }
        Ok(())
    }
}

/// Runs `ip` in the namespace of the calling thread.
///
/// # Errors
/// What `ip` says.
pub fn ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("ip is installed")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}
