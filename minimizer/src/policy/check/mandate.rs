//! The mandate: it says why, it ends, and it bounds how long it and the records may last.

use std::time::Duration;

use jiff::Timestamp;
use toml::value::Datetime;

use super::check_said;
use crate::policy::file::MandateFile;
use crate::policy::mandate::Mandate;
use crate::policy::model::Commitments;
use crate::policy::words;
use crate::support::toml::{At, Document};
use crate::support::units;

/// The longest period of a mandate that sets none itself: a year, which may have a leap day.
const PERIOD_DEFAULT: Duration = Duration::from_hours(366 * 24);
/// The longest period that a mandate may set.
const PERIOD_MAX: Duration = Duration::from_hours(3660 * 24);

/// Reads a mandate and its limits, and notes what is wrong with them.
pub fn check(
    document: &mut Document<'_>,
    at: &At<MandateFile>,
    commitments: &mut Commitments,
) -> Option<Mandate> {
    let mandate = at.get();
    let id = check_said(document, &mandate.id, "id");
    let purpose = check_said(document, &mandate.purpose, "purpose");
    let legal_basis = check_said(document, &mandate.legal_basis, "legal_basis");
    commitments.max_period = limit(document, mandate.max_period.as_ref(), Some(PERIOD_MAX));
    commitments.max_retention = limit(document, mandate.max_retention.as_ref(), None);
    let valid_from = match &mandate.valid_from {
        Some(moment) => check_moment(document, moment),
        None => {
            document.refuse(at, "the mandate does not say from when it is valid: add `valid_from`");
            None
        }
    };
    let valid_until = match &mandate.valid_until {
        Some(moment) => check_moment(document, moment),
        None => {
            document.refuse(
                at,
                "the mandate has no end, and one without would never be looked at again: add `valid_until`",
            );
            None
        }
    };
    let (valid_from, valid_until) = (valid_from?, valid_until?);
    let end = mandate.valid_until.as_ref()?;
    if valid_until <= valid_from {
        document.refuse(
            end,
            format!("the mandate ends before it begins ({valid_from}): `valid_until` must be later"),
        );
        return None;
    }
    let period = valid_until.duration_since(valid_from).unsigned_abs();
    let longest = commitments.max_period.unwrap_or(PERIOD_DEFAULT);
    if period > longest {
        let fix = if commitments.max_period.is_some() {
            "end it earlier, or raise `max_period`"
        } else {
            "end it earlier, or add the longest period that is meant as `max_period`"
        };
        document.limit(
            end,
            format!(
                "the mandate lasts {}, longer than {}, and nobody would look at it again before its end: {fix}",
                words::duration(Duration::from_hours(period.as_secs().div_ceil(3600))),
                words::duration(longest),
            ),
        );
    }
    Some(Mandate { id, purpose, legal_basis, valid_from, valid_until })
}

/// A limit above zero, and at most the longest.
fn limit(
    document: &mut Document<'_>,
    at: Option<&At<String>>,
    longest: Option<Duration>,
) -> Option<Duration> {
    let at = at?;
    let allowed =
        longest.map_or_else(String::new, |longest| format!(", at most {}", words::duration(longest)));
    let message = match units::time(at.get()) {
        Ok(limit) if !limit.is_zero() && longest.is_none_or(|longest| limit <= longest) => {
            return Some(limit);
        }
        Ok(_) => format!("`{}` is no limit: allowed are times like \"90 days\"{allowed}", at.get()),
        Err(error) => format!("{error}; as a limit, allowed are times like \"90 days\"{allowed}"),
    };
    document.refuse(at, message);
    None
}

fn check_moment(document: &mut Document<'_>, at: &At<Datetime>) -> Option<Timestamp> {
    let text = at.get().to_string();
    if at.get().offset.is_none() || at.get().date.is_none() {
        document.refuse(
            at,
            format!(
                "`{text}` is a different moment in each time zone: write a date, a time and the offset from UTC, like \
                 2026-04-01T00:00:00+09:00"
            ),
        );
        return None;
    }
    let moment = text.parse();
    if moment.is_err() {
        let is_last = at.get().date.is_some_and(|date| date.year == 9999);
        let fault = if is_last {
            format!(
                "is later than {}, the last moment that the agent can compare with its clock: a mandate ends, and is \
                 looked at again then, so write the day of its end",
                Timestamp::MAX
            )
        } else {
            "is no moment that the agent can compare with its clock: write one like 2026-04-01T00:00:00+09:00"
                .to_owned()
        };
        document.refuse(at, format!("`{text}` {fault}"));
    }
    moment.ok()
}
