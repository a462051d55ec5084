//! The agent's own events of `tracing` as lines; those of its dependencies are not logged, because they may name peers.

use std::fmt::{Debug, Write as _};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::channel::Channel;
use super::style::Style;
use crate::support::printable;

/// The crate whose events are logged.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// Formats events and puts them into the channel.
pub(super) struct Events {
    pub(super) channel: Arc<Channel>,
    pub(super) style: Style,
    pub(super) level: LevelFilter,
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= self.level
            && metadata.target().split("::").next() == Some(OWN)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.channel.push(self.style.line(*event.metadata().level(), &printable::message(&text.0)));
    }

    // There are no spans: `enabled` refuses them.
    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// The message of an event, and its fields behind it.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A string takes everything.
        let _infallible = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::Duration;

    use tracing::level_filters::LevelFilter;
    use tracing::{debug, info, info_span, subscriber, warn};

    use super::{Channel, Events, Style};

    #[test]
    fn own_events_of_the_level_are_lines_and_no_others() {
        let channel = Arc::new(Channel::default());
        let events = Events { channel: Arc::clone(&channel), style: Style::People, level: LevelFilter::INFO };
        subscriber::with_default(events, || {
            let _span = info_span!("span", port = 443).entered();
            info!("{} is watched", "eth0");
            debug!("nobody asked");
            warn!(target: "rskafka::connection", "somebody else");
            warn!(sink = 7, "fails");
            // Texts of others are in messages: a line of a list, the answer of a broker.
            info!("{}", "one\u{1b}[2J\ntwo\u{202e}");
        });
        let written = Arc::new(Mutex::new(String::new()));
        let (writer, lines) = (Arc::clone(&channel), Arc::clone(&written));
        thread::spawn(move || {
            let write = |octets: &[u8]| {
                lines.lock().expect("nobody panicked").push_str(&String::from_utf8_lossy(octets));
                Ok::<_, io::Error>(())
            };
            writer.write_forever(write, |_| String::new());
        });
        assert!(channel.flush(Duration::from_secs(60)));
        let written = written.lock().expect("nobody panicked");
        assert_eq!(
            *written,
            "minimizer: eth0 is watched\nminimizer: warning: fails sink=7\nminimizer: one\\x1b[2J\ntwo\\xe2\\x80\\xae\n"
        );
    }
}
