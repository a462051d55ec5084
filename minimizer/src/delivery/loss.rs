//! Why records did not reach a recipient.

use minimizer_common::named;

named! {
    /// Why records did not reach a recipient.
    pub enum Loss {
        QueueFull, "queue_full", "The sink works, and records come faster than it takes them.";
        Unreachable, "unreachable", "Nobody answers at the other end, or the connection broke.";
        Stalled, "stalled", "The other end does not read what it is sent.";
        Refused, "refused", "The other end does not let the agent in: certificate, authentication, permission.";
        DiskFull, "disk_full", "No space is left where the files are.";
        Unwritable, "unwritable", "The folder is missing, is not writable, or its device fails.";
        NoRecipient, "no_recipient", "The policy in force has no recipient of this name.";
        Output, "output", "The standard output is closed.";
        Shutdown, "shutdown", "The agent ended before the other end took them.";
    }
}
