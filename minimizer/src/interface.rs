//! Network interfaces by name and index, as this network namespace has them.

use std::io;

use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketType, socket};
use thiserror::Error;

/// An interface that the agent watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name when the agent started.
    pub name: String,
    /// Its index.
    pub index: u32,
}

/// Why an interface cannot be found.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// No such name.
    #[error("there is no interface {name}; `ip -brief link` lists those of this network namespace")]
    Unknown {
        /// The name that was given.
        name: String,
    },
    /// The kernel does not answer.
    #[error("cannot ask the kernel for interfaces: {0}")]
    Socket(#[from] io::Error),
}

impl Interface {
    /// The interface of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn by_name(name: &str) -> Result<Self, InterfaceError> {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(io::Error::from)?;
        let index =
            name_to_index(&socket, name).map_err(|_| InterfaceError::Unknown { name: name.to_owned() })?;
        Ok(Self { name: name.to_owned(), index })
    }

    /// Whether an interface of this index still exists.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn exists(&self) -> Result<bool, InterfaceError> {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(io::Error::from)?;
        Ok(index_to_name(&socket, self.index).is_ok())
    }
}
