//! What a process holds in the kernel, and whether it is gone once the process is.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};

/// Longest wait for the kernel to free what nobody holds any more: it does so after grace periods.
const FREE_LIMIT: Duration = Duration::from_secs(30);

/// BPF objects, and the network namespace with its interfaces, of a running process.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// Ids of programs.
    pub programs: BTreeSet<u32>,
    /// Ids of maps.
    pub maps: BTreeSet<u32>,
    /// Ids of links.
    pub links: BTreeSet<u32>,
    /// The namespace, as `net:[INODE]`.
    pub namespace: String,
    /// Names of the interfaces in the namespace.
    pub interfaces: BTreeSet<String>,
}

impl Holdings {
    /// What the process holds now.
    ///
    /// # Errors
    /// When the process is not there.
    pub fn of(process_id: u32) -> Result<Self> {
        let process = format!("/proc/{process_id}");
        let mut holdings = Self {
            namespace: fs::read_link(format!("{process}/ns/net"))?.display().to_string(),
            interfaces: interfaces(&fs::read_to_string(format!("{process}/net/dev"))?),
            ..Self::default()
        };
        for entry in fs::read_dir(format!("{process}/fdinfo"))? {
            // A descriptor may be closed between listing and reading.
            let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
            for line in info.lines() {
                let Some((key, value)) = line.split_once(':') else { continue };
                let ids = match key {
                    "prog_id" => &mut holdings.programs,
                    "map_id" => &mut holdings.maps,
                    "link_id" => &mut holdings.links,
                    _ => continue,
                };
                ids.insert(value.trim().parse().with_context(|| format!("{line} is not an id"))?);
            }
        }
        Ok(holdings)
    }

    /// Waits until the kernel has none of it any more. The process has ended.
    ///
    /// # Errors
    /// What is left.
    pub fn wait_gone(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let left = self.left()?;
            if left.is_empty() {
                return Ok(());
            }
            ensure!(begin.elapsed() < FREE_LIMIT, "left behind: {left:?}");
            std::thread::yield_now();
        }
    }

    fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let programs = loaded_programs().filter_map(Result::ok).map(|program| program.id());
        left.extend(programs.filter(|id| self.programs.contains(id)).map(|id| format!("program {id}")));
        let maps = loaded_maps().filter_map(Result::ok).map(|map| map.id());
        left.extend(maps.filter(|id| self.maps.contains(id)).map(|id| format!("map {id}")));
        let links = loaded_links().filter_map(Result::ok).map(|link| link.id());
        left.extend(links.filter(|id| self.links.contains(id)).map(|id| format!("link {id}")));
        if fs::read_to_string("/proc/self/mountinfo")?.contains(&self.namespace) {
            left.push(format!("a mount of {}", self.namespace));
        }
        for process in fs::read_dir("/proc")? {
            let namespace = fs::read_link(process?.path().join("ns/net"));
            if namespace.is_ok_and(|namespace| namespace.display().to_string() == self.namespace) {
                left.push(format!("a process in {}", self.namespace));
            }
        }
        Ok(left)
    }
}

/// Names of the interfaces in the namespace of the calling thread.
///
/// # Errors
/// When they cannot be listed.
pub fn host_interfaces() -> Result<BTreeSet<String>> {
    Ok(interfaces(&fs::read_to_string("/proc/thread-self/net/dev")?))
}

fn interfaces(net_dev: &str) -> BTreeSet<String> {
    net_dev.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}
