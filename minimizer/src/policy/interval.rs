//! The time between drains: the policy may fix or bound it, and the agent chooses within that.

use std::time::Duration;

use thiserror::Error;

use super::words;
use crate::policy::model::Policy;

/// The agent would drain at other times than the policy says.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "the policy {policy} wants {} between drains, and not {}: leave `interval` out, or ask for one that the policy allows; a reload \
     changes no interval, so that a running agent is started anew for it",
    words::interval(*wanted), words::duration(*asked)
)]
pub struct UnfitInterval {
    policy: String,
    wanted: (Duration, Duration),
    asked: Duration,
}

impl Policy {
    /// The time between drains: the one that is asked for, or else the allowed one that is nearest to the default.
    ///
    /// # Errors
    /// If the policy does not allow the one that is asked for.
    pub fn interval(&self, asked: Option<Duration>, default: Duration) -> Result<Duration, UnfitInterval> {
        let Some((min, max)) = self.commitments.interval else { return Ok(asked.unwrap_or(default)) };
        match asked {
            None => Ok(default.clamp(min, max)),
            Some(asked) if (min..=max).contains(&asked) => Ok(asked),
            Some(asked) => Err(UnfitInterval { policy: self.name.clone(), wanted: (min, max), asked }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use crate::policy::model::Policy;

    fn chosen(interval: &str, asked: Option<u64>) -> Result<Duration, String> {
        let text = format!(
            "name = \"p\"\n{interval}\n[[recipients]]\nname = \"r\"\npurpose = \"x\"\nfields = {{ vlanId = \"exact\" }}\n"
        );
        let policy = Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
        let chosen = policy.interval(asked.map(Duration::from_millis), Duration::from_secs(10));
        chosen.map_err(|error| error.to_string())
    }

    #[test]
    fn the_agent_chooses_within_what_the_policy_allows() {
        let seconds = |seconds| Ok(Duration::from_secs(seconds));
        assert_eq!(chosen("", None), seconds(10));
        assert_eq!(chosen("", Some(3000)), seconds(3));
        let fixed = "interval = \"30s\"";
        assert_eq!(chosen(fixed, None), seconds(30));
        assert_eq!(chosen(fixed, Some(30_000)), seconds(30));
        let said = chosen(fixed, Some(100)).expect_err("is not allowed");
        assert!(said.contains("wants 30 seconds between drains, and not 100 milliseconds"), "{said}");
        assert!(said.contains("a reload changes no interval"), "{said}");
        let bounds = "interval = { min = \"1s\", max = \"5s\" }";
        assert_eq!(chosen(bounds, None), seconds(5));
        assert_eq!(chosen(bounds, Some(1000)), seconds(1));
        for asked in [999, 5001] {
            assert!(chosen(bounds, Some(asked)).is_err(), "{asked}");
        }
    }
}
