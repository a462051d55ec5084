//! The modules of a kernel that the guest loads, with those that they need.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command;

/// What the guest wants. What a kernel has built in has no module.
const WANTED: [&str; 6] = ["veth", "virtio_pci", "virtio_net", "vmxnet3", "bonding", "team"];
/// Separates the entries that describe a module in its file.
const SEPARATOR: u8 = 0;
/// Begins the entry that names the modules that it needs.
const DEPENDS: &[u8] = b"depends=";

/// Puts the wanted modules below `content` into the folder `target`, unpacked. In the order of the files' names each
/// module comes after those that it needs.
pub fn collect(content: &Path, target: &Path) -> Result<()> {
    let mut packed = BTreeMap::new();
    list(content, &mut packed)?;
    fs::create_dir_all(target)?;
    let mut order = Vec::new();
    for name in WANTED {
        collect_one(name, &packed, target, &mut order)?;
    }
    for (number, name) in order.iter().enumerate() {
        fs::rename(target.join(format!("{name}.ko")), target.join(format!("{number:02}-{name}.ko")))?;
    }
    ensure!(order.iter().any(|name| name == "veth"), "there is no veth.ko");
    Ok(())
}

/// Unpacks a module and those that it needs, which go before it in `order`.
fn collect_one(
    name: &str,
    packed: &BTreeMap<String, PathBuf>,
    target: &Path,
    order: &mut Vec<String>,
) -> Result<()> {
    let Some(path) = packed.get(name).filter(|_| !order.iter().any(|known| known == name)) else {
        return Ok(());
    };
    let plain = target.join(format!("{name}.ko"));
    if path.extension() == Some(OsStr::new("xz")) {
        let mut unpack = Command::new("xz");
        unpack.args(["--decompress", "--stdout"]).arg(path).stdout(File::create(&plain)?);
        command::run(&mut unpack)?;
    } else {
        fs::copy(path, &plain)?;
    }
    for needed in needed(&fs::read(&plain)?) {
        collect_one(&needed, packed, target, order)?;
    }
    order.push(name.to_owned());
    Ok(())
}

/// Names of the modules that a module needs, from its description.
fn needed(module: &[u8]) -> Vec<String> {
    let entry = module.split(|octet| *octet == SEPARATOR).find_map(|entry| entry.strip_prefix(DEPENDS));
    let names = String::from_utf8_lossy(entry.unwrap_or_default()).replace('-', "_");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The files of all modules below a folder, by the modules' names.
fn list(folder: &Path, modules: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        // A kernel package links to folders where its sources may lie.
        if path.is_dir() && !path.is_symlink() {
            list(&path, modules)?;
        } else if let Some((name, packing)) =
            path.file_name().and_then(OsStr::to_str).and_then(|name| name.split_once(".ko"))
            && ["", ".xz"].contains(&packing)
        {
            modules.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn what_a_module_needs_is_in_its_description() {
        assert_eq!(
            needed(b"\x7fELF\0license=GPL\0depends=net_failover,virtio-ring\0name=x\0"),
            ["net_failover", "virtio_ring"]
        );
        assert!(needed(b"license=GPL\0depends=\0name=x\0").is_empty());
        assert!(needed(b"").is_empty());
    }
}
