//! The metric families: names, help texts, and where their values come from.
//!
//! Names are written as Prometheus shows them: the suffix says the unit, and `_total` says that it is a counter.

mod drains;
mod interfaces;
mod log;
mod policy;
mod process;
mod programs;
mod records;
mod sinks;
mod table;
mod web;

use std::fmt;

use minimizer_common::LAYOUT_VERSION;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::Scrape;
use crate::serve::snapshot::Snapshot;

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families { encoder, series: 0 };
        let snapshot = &self.snapshot;
        families.interfaces(snapshot)?;
        families.records(snapshot)?;
        families.sinks(snapshot)?;
        families.policy(snapshot, self.time)?;
        families.table(snapshot)?;
        families.drains(snapshot)?;
        families.programs(snapshot)?;
        families.web(&self.access)?;
        families.log(self.log_lines_lost)?;
        families.agent(snapshot)?;
        families.process(snapshot, self.process.as_ref())?;
        families.number_of_series()
    }
}

/// Labels of a series.
type Labels<'snapshot> = Vec<(&'static str, &'snapshot str)>;

/// Encodes families and counts their series.
struct Families<'encoder> {
    encoder: DescriptorEncoder<'encoder>,
    series: u64,
}

impl Families<'_> {
    fn agent(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let build = &snapshot.build;
        let layout = LAYOUT_VERSION.to_string();
        let labels: Labels<'_> = vec![
            ("version", build.version),
            ("layout", &layout),
            ("object_sha256", &build.object_digest),
            ("program_tag", &build.program_tag),
        ];
        self.gauges("minimizer_build_info", "What runs: always 1", [(labels, 1_u64)])
    }

    fn number_of_series(&mut self) -> fmt::Result {
        self.gauge("minimizer_metrics_series", "Series in this answer, this one included", self.series + 1)
    }

    /// A family: one series for each item, all with the same labels.
    fn family<Label: EncodeLabelValue, Value: SeriesValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Vec<(&'static str, Label)>, Value)>,
    ) -> fmt::Result {
        let (name, unit) = split(name);
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), Value::TYPE)?;
        for (labels, value) in series {
            self.series += 1;
            if labels.is_empty() {
                value.encode(&mut family)?;
            } else {
                value.encode(&mut family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// Counters with the same labels, one for each item.
    fn counters<Label: EncodeLabelValue, Value: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Vec<(&'static str, Label)>, Value)>,
    ) -> fmt::Result {
        // The encoder appends the suffix itself.
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.family(name, help, series.into_iter().map(|(labels, value)| (labels, CounterValue(value))))
    }

    /// Gauges with the same labels, one for each item.
    fn gauges<Label: EncodeLabelValue, Value: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Vec<(&'static str, Label)>, Value)>,
    ) -> fmt::Result {
        self.family(name, help, series.into_iter().map(|(labels, value)| (labels, GaugeValue(value))))
    }

    /// A counter without labels.
    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.counters::<&str, _>(name, help, [(Vec::new(), value)])
    }

    /// A gauge without labels.
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges::<&str, _>(name, help, [(Vec::new(), value)])
    }
}

/// A value that is encoded as the type of its family.
trait SeriesValue {
    const TYPE: MetricType;

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result;
}

struct CounterValue<Value>(Value);

impl<Value: EncodeCounterValue> SeriesValue for CounterValue<Value> {
    const TYPE: MetricType = MetricType::Counter;

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.0, None)
    }
}

struct GaugeValue<Value>(Value);

impl<Value: EncodeGaugeValue> SeriesValue for GaugeValue<Value> {
    const TYPE: MetricType = MetricType::Gauge;

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.0)
    }
}

/// Splits a name into its stem and its unit, if it ends in one.
fn split(name: &str) -> (&str, Option<Unit>) {
    let units = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)];
    let found = units.into_iter().find_map(|(suffix, unit)| Some((name.strip_suffix(suffix)?, Some(unit))));
    found.unwrap_or((name, None))
}
