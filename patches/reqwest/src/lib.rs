//! An HTTP client that never connects: builds have what they need, or fail.

use thiserror::Error;

/// What every request ends with.
#[derive(Debug, Error)]
#[error("builds fetch nothing")]
pub struct Error;

/// The part of the interface that is called.
pub mod blocking {
    use super::Error;

    /// Makes clients.
    #[derive(Debug, Default)]
    pub struct ClientBuilder;

    impl ClientBuilder {
        /// One without settings.
        #[must_use]
        pub const fn new() -> Self {
            Self
        }

        /// Takes notice of a name that is never told.
        #[must_use]
        pub fn user_agent(self, _name: impl AsRef<str>) -> Self {
            self
        }

        /// The client.
        ///
        /// # Errors
        /// Always.
        pub const fn build(self) -> Result<Client, Error> {
            Err(Error)
        }
    }

    /// A client, of which there is none.
    #[derive(Debug)]
    pub enum Client {}

    impl Client {
        /// A request, of which there is none.
        #[must_use]
        pub const fn get(&self, _url: &str) -> Request {
            match *self {}
        }
    }

    /// A request, of which there is none.
    #[derive(Debug)]
    pub enum Request {}

    impl Request {
        /// The answer, of which there is none.
        ///
        /// # Errors
        /// There is no request.
        pub const fn send(self) -> Result<Response, Error> {
            match self {}
        }
    }

    /// An answer, of which there is none.
    #[derive(Debug)]
    pub enum Response {}

    impl Response {
        /// Its text.
        ///
        /// # Errors
        /// There is no answer.
        pub const fn text(self) -> Result<String, Error> {
            match self {}
        }
    }
}
