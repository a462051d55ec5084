//! A host at the far end of a cable, for tests of what ICMP and silence tell: within one host ICMP is not limited, and names of
//! hosts as a test wants them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use tempfile::TempDir;

use crate::veth::ip;

static NETWORKS: AtomicU8 = AtomicU8::new(0);

type Job = Box<dyn FnOnce() + Send>;

/// The far host: a namespace that ends with this value. Each has networks of its own, because what ICMP says of an address is
/// known to the whole process.
pub struct Far {
    jobs: Sender<Job>,
    /// Its addresses: two of IPv4 and one of IPv6.
    pub addresses: [IpAddr; 3],
    /// Addresses of IPv4 and IPv6 at which nobody is: what is sent there is swallowed.
    pub silent: [IpAddr; 2],
}

impl Far {
    /// Lays a cable from the namespace of the calling thread, which should be one of its own, to a new far host.
    ///
    /// # Errors
    /// What the kernel or `ip` says.
    pub fn new() -> Result<Self> {
        let (jobs, work) = channel::<Job>();
        thread::Builder::new().name("far host".to_owned()).spawn(move || {
            while let Ok(job) = work.recv() {
                job();
            }
        })?;
        let network = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let ipv4 = |host: u8| Ipv4Addr::new(10, 9, network, host).into();
        let ipv6 = |host| Ipv6Addr::new(0x2001, 0xdb8, 9, network.into(), 0, 0, 0, host).into();
        let addresses = [ipv4(2), ipv4(3), ipv6(2)];
        let far = Self { jobs, addresses, silent: [ipv4(0x66), ipv6(0x66)] };
        let thread = far.run(|| -> Result<_> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            ip("link set dev lo up")?;
            Ok(rustix::thread::gettid().as_raw_nonzero())
        })??;
        ip(&format!("link add near0 type veth peer name far0 netns {thread}"))?;
        far.run(move || set_up("far0", &addresses))??;
        set_up("near0", &[ipv4(1), ipv6(1)])?;
        for address in far.silent {
            ip(&format!("neighbour add {address} lladdr 02:00:00:00:00:66 dev near0 nud permanent"))?;
        }
        Ok(far)
    }

    /// Does something on the far host: sockets that it opens are there.
    ///
    /// # Errors
    /// When the far host is gone.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (answer, answers) = channel();
        self.jobs.send(Box::new(move || drop(answer.send(act())))).ok().context("the far host is there")?;
        answers.recv().context("the far host answers")
    }
}

fn set_up(interface: &str, addresses: &[IpAddr]) -> Result<()> {
    fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
    for address in addresses {
        match address.is_ipv6() {
            true => ip(&format!("address add {address}/64 dev {interface} nodad"))?,
            false => ip(&format!("address add {address}/24 dev {interface}"))?,
        };
    }
    ip(&format!("link set dev {interface} up"))?;
    Ok(())
}

/// `/etc/hosts` of the calling thread, and of the threads and processes that it starts.
pub struct Hosts {
    path: PathBuf,
    _folder: TempDir,
}

impl Hosts {
    /// Puts an empty one in place.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("hosts");
        fs::write(&path, "")?;
        mount_bind(&path, "/etc/hosts")?;
        Ok(Self { path, _folder: folder })
    }

    /// Gives this name, and no other, these addresses.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let lines = addresses.iter().map(|address| format!("{address} {name}\n"));
        Ok(fs::write(&self.path, lines.collect::<String>())?)
    }
}
