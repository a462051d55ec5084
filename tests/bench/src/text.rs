//! The report as tables for people.

use std::fmt::{self, Display, Formatter};

use super::curve::{LAYOUTS, Layout, Tuples};
use super::report::Report;
use super::statistics::Spread;
use super::{curve, end_to_end, executed, kinds, live, packets, policies, sinks, tables};

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "Kernel {}, {}, CPU {}.", self.kernel, self.cpu, self.cpu_number)?;
        writeln!(out, "Figures are median (smallest–largest) of {} rounds.", self.effort.runs)?;
        if self.is_timed_by_kernel {
            writeln!(out, "kernel.bpf_stats_enabled is 1: the base has two readings of a clock.")?;
        }
        for program in &self.programs {
            let verified = program.verified_instructions.unwrap_or(0);
            let (name, octets) = (program.name, program.jited_octets);
            writeln!(
                out,
                "  {name:<18} {verified:>6} instructions verified, {octets:>6} bytes of machine code"
            )?;
        }
        self.per_packet.iter().try_for_each(|row| packets(out, row))?;
        self.kinds.iter().try_for_each(|row| kinds(out, row))?;
        self.policies.iter().try_for_each(|row| policies(out, row))?;
        executed(out, &self.executed)?;
        self.new_flows(out)?;
        self.full_table(out)?;
        self.two_cpus(out)?;
        self.drain(out)?;
        tables(out, &self.tables)?;
        curve(out, &self.curve)?;
        self.live.iter().try_for_each(|row| live(out, row))?;
        end_to_end(out, &self.end_to_end)?;
        sinks(out, &self.sinks)?;
        if !self.targets.is_empty() {
            writeln!(out, "\nTargets, of minimizer unless another is named")?;
        }
        self.targets.iter().try_for_each(|target| writeln!(out, "  {target}"))?;
        self.left_out.iter().try_for_each(|what| writeln!(out, "not measured: {what}"))?;
        self.failed.iter().try_for_each(|what| writeln!(out, "failed: {what}"))
    }
}

fn packets(out: &mut Formatter<'_>, row: &packets::Row) -> fmt::Result {
    let (traffic, popularity, base) = (row.traffic.name(), row.popularity, row.base_ns.median);
    writeln!(out, "\n{traffic}, {} flows, {popularity}; ns per packet (base {base:.1})", row.flows)?;
    writeln!(out, "  {:<18} {:>24}   {:>24}", "program", "cost", "minimizer is, ×")?;
    for figure in &row.programs {
        write!(out, "  {:<18} {:>24.1}", figure.name, figure.ns)?;
        if let Some(ratio) = figure.minimizer_ratio {
            write!(out, "   {ratio:>24.2}")?;
        }
        if figure.missed > 0.0 {
            write!(out, "   {:.1} % of the packets are missing", figure.missed * 100.0)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A ratio at the end of a line that may not be there, and the end.
fn rest(out: &mut Formatter<'_>, ratio: Option<Spread>, width: usize) -> fmt::Result {
    ratio.map_or(Ok(()), |ratio| write!(out, "   {ratio:>width$.2}"))?;
    writeln!(out)
}

fn kinds(out: &mut Formatter<'_>, row: &kinds::Row) -> fmt::Result {
    writeln!(out, "\nminimizer by kind of packet, {} flows, uniform; ns per packet", row.flows)?;
    writeln!(out, "  {:<22} {:>24}   {:>24}   {:>24}", "packets", "cost", "of IPv4 TCP, ×", "of beside, ×")?;
    for figure in &row.figures {
        let kinds::Figure { traffic, ns, plain_ratio, beside_ratio } = figure;
        write!(out, "  {:<22} {ns:>24.1}   {plain_ratio:>24.2}", traffic.name())?;
        rest(out, *beside_ratio, 24)?;
    }
    Ok(())
}

fn policies(out: &mut Formatter<'_>, row: &policies::Row) -> fmt::Result {
    let (traffic, flows) = (row.traffic.name(), row.flows);
    writeln!(out, "\nminimizer by policy, {traffic}, {flows} flows, uniform; ns per packet")?;
    let (cost, ratio, added) = ("cost", "of full-record, ×", "added, ns");
    writeln!(
        out,
        "  {:<34} {cost:>20}   {ratio:>18}   {added:>20}  instructions   {:>18}",
        "policy", "of beside, ×"
    )?;
    for figure in &row.figures {
        let policies::Figure { name, ns, full_record_ratio, added_ns, beside_ratio, instructions } = figure;
        write!(
            out,
            "  {name:<34} {ns:>20.1}   {full_record_ratio:>18.2}   {added_ns:>20.1}  {instructions:>12}"
        )?;
        rest(out, *beside_ratio, 18)?;
    }
    Ok(())
}

fn executed(out: &mut Formatter<'_>, rows: &[executed::Row]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nExecuted for a packet, on average of 4,096, by an interpreter of the translated program"
    )?;
    write!(out, "  {:<18} {:<15} {:<8} {:<5}", "program", "policy", "packets", "flows")?;
    writeln!(out, " instructions  branches  calls  lines  of constants  machine code")?;
    for row in rows {
        let flows = if row.is_new { "new" } else { "known" };
        let policy = row.policy.unwrap_or_default();
        write!(out, "  {:<18} {policy:<15} {:<8} {flows:<5}", row.name, row.traffic.name())?;
        write!(out, " {:>12.1}  {:>8.1}  {:>5.1}", row.instructions, row.branches, row.calls)?;
        writeln!(out, "  {:>5.2}  {:>12.2}  {:>12}", row.lines, row.constant_lines, row.machine_octets)?;
    }
    Ok(())
}

impl Report {
    fn new_flows(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Some(first) = self.new_flows.first() else { return Ok(()) };
        writeln!(out, "\nEvery packet a new flow, {} into an empty table; ns per packet", first.flows)?;
        writeln!(
            out,
            "  {:<13} {:>24}   {:>24}   {:>24}   {:>24}",
            "program", "new", "existing", "new to existing, ×", "minimizer's new is, ×"
        )?;
        for row in &self.new_flows {
            let (new, existing, ratio) = (row.new_ns, row.existing_ns, row.ratio);
            write!(out, "  {:<13} {new:>24.1}   {existing:>24.1}   {ratio:>24.2}", row.name)?;
            rest(out, row.minimizer_ratio, 24)?;
        }
        Ok(())
    }

    fn full_table(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Some(first) = self.full_table.first() else { return Ok(()) };
        writeln!(out, "\nA full table for {} flows, every packet another flow; ns per packet", first.flows)?;
        let (overflow, ratio, ours) = ("overflow", "overflow to existing, ×", "minimizer's overflow, ×");
        writeln!(out, "  {:<13} {overflow:>24}   {:>24}   {ratio:>24}   {ours:>24}", "program", "existing")?;
        for row in &self.full_table {
            let (overflow, existing, ratio) = (row.overflow_ns, row.existing_ns, row.ratio);
            write!(out, "  {:<13} {overflow:>24.1}   {existing:>24.1}   {ratio:>24.2}", row.name)?;
            rest(out, row.minimizer_ratio, 24)?;
        }
        for row in &self.full_table {
            let (name, counted, overflow, packets) = (row.name, row.counted, row.overflow, row.packets);
            writeln!(out, "  {name:<13} {counted} counted + {overflow} overflow = {packets} packets sent")?;
        }
        Ok(())
    }

    fn two_cpus(&self, out: &mut Formatter<'_>) -> fmt::Result {
        if self.two_cpus.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nOne flow on two CPUs; ns per packet")?;
        let (alone, together, ratio) = ("alone", "both at once", "at once to alone, ×");
        writeln!(out, "  {:<13} CPU {alone:>24}   {together:>24}   {ratio:>24}", "program")?;
        for row in &self.two_cpus {
            let (alone, together, ratio) = (row.alone_ns, row.together_ns, row.ratio);
            writeln!(
                out,
                "  {:<13} {:>3} {alone:>24.1}   {together:>24.1}   {ratio:>24.2}",
                row.name, row.cpu
            )?;
        }
        Ok(())
    }

    fn drain(&self, out: &mut Formatter<'_>) -> fmt::Result {
        if self.per_record.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nDrain, ns per record")?;
        write!(out, "  {:<19}  {:>9}  {:>24}", "packets came on", "records", "agent's drain")?;
        write!(out, "  {:>24}", "copy and clear")?;
        writeln!(out, "  {:>24}  drain/batch  copy/batch", "lookup_and_delete_batch")?;
        for row in &self.per_record {
            write!(out, "  {:<19}  {:>9}", row.spreading.name(), row.records)?;
            for spread in [row.drain_ns, row.copy_ns, row.batch_ns] {
                write!(out, "  {spread:>24.1}")?;
            }
            writeln!(out, "  {:>11.3}  {:>10.3}", row.drain_ratio.median, row.copy_ratio.median)?;
        }
        Ok(())
    }
}

fn tables(out: &mut Formatter<'_>, rows: &[tables::Row]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nMemory of the tables, full-record, by --flows")?;
    writeln!(
        out,
        "  {:<10} {:>9}  {:>5}  {:>12}  {:>14}",
        "agent", "flows", "maps", "their memory", "by the agent"
    )?;
    for tables::Row { name, flows, maps, mib, told_mib } in rows {
        writeln!(out, "  {name:<10} {flows:>9}  {maps:>5}  {mib:>8.1} MiB  {told_mib:>10.1} MiB")?;
    }
    Ok(())
}

fn end_to_end(out: &mut Formatter<'_>, rows: &[end_to_end::Row]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nThe whole agent, full-record, each interval as many new records as live frames")?;
    write!(out, "  {:<10} {:<11} {:<8} {:>9}  {:>14}", "agent", "sink", "packets", "records", "interval, s")?;
    write!(out, "  {:>9}  {:>13}  {:>13}", "of a CPU", "CPU µs/record", "octets/record")?;
    writeln!(out, "  {:>10}  {:>10}  {:>7}", "memory", "tables", "dropped")?;
    for row in rows {
        let (sink, packets, share) = (row.kind.name(), row.traffic.name(), row.cpu_share * 100.0);
        write!(out, "  {:<10} {sink:<11} {packets:<8} {:>9}", row.name, row.records)?;
        write!(out, "  {:>6.2} of {:>4.1}", row.measured_interval_seconds, row.interval_seconds)?;
        write!(out, "  {share:>8.1}%  {:>13.2}  {:>13.1}", row.cpu_us_per_record, row.octets_per_record)?;
        writeln!(out, "  {:>6.0} MiB  {:>6.0} MiB  {:>7}", row.memory_mib, row.tables_mib, row.dropped)?;
    }
    Ok(())
}

fn sinks(out: &mut Formatter<'_>, rows: &[sinks::Row]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nSinks alone, full-record, until a batch is out of their hands; ns per record")?;
    writeln!(
        out,
        "  {:<13}  {:<9}  {:>9}  {:>24}  {:>24}  {:>14}  {:>13}",
        "sink", "records", "", "CPU", "elapsed", "million/CPU s", "octets/record"
    )?;
    for row in rows {
        let sinks::Row { kind, mix, records, cpu_ns, elapsed_ns, octets_per_record } = row;
        let millions = 1e3 / cpu_ns.median;
        writeln!(
            out,
            "  {:<13}  {:<9}  {records:>9}  {cpu_ns:>24.0}  {elapsed_ns:>24.0}  {millions:>14.2}  {octets_per_record:>13.1}",
            kind.name(),
            mix.name()
        )?;
    }
    Ok(())
}

fn curve(out: &mut Formatter<'_>, rows: &[curve::Row]) -> fmt::Result {
    for tuples in [Tuples::Random, Tuples::Sequential] {
        let of = |layout: Layout| rows.iter().filter(move |row| (row.layout, row.tuples) == (layout, tuples));
        if of(LAYOUTS[0]).next().is_none() {
            continue;
        }
        let name = format!("{tuples:?}").to_lowercase();
        writeln!(out, "\nOverflow by load, {name} tuples, four packets of each flow; percent")?;
        writeln!(out, "  {:<6} {:>37} {:>68}", "", "packets, half lines", "flows without a slot")?;
        write!(out, "  {:>6} {:>12} {:>12} {:>12}", "load", "second group", "spill log", "overflow")?;
        for layout in LAYOUTS {
            write!(out, " {:>16}", layout.name())?;
        }
        writeln!(out)?;
        for choice in of(LAYOUTS[0]) {
            write!(out, "  {:>4} %", choice.load_percent)?;
            for share in [choice.second, choice.spilled, choice.overflow] {
                write!(out, " {:>12.3}", share * 100.0)?;
            }
            for layout in LAYOUTS {
                let row = of(layout).find(|row| row.load_percent == choice.load_percent);
                write!(out, " {:>16.3}", row.map_or(f64::NAN, |row| row.flows_without_slot * 100.0))?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

fn live(out: &mut Formatter<'_>, row: &live::Row) -> fmt::Result {
    writeln!(out, "\nLive frames on a cable, {} flows, {} packets a run", row.flows, row.packets)?;
    let (mpps, ratio, added) = ("Mpps received", "of an empty program, ×", "ns more than it");
    let (ours, lost) = ("minimizer's are, ×", "not reported, %");
    write!(out, "  {:<16} {mpps:>18}   {ratio:>22}   {added:>22}   {ours:>20}", "receiver")?;
    writeln!(out, "   not delivered, %   {lost:>20}")?;
    for figure in &row.figures {
        let (name, mpps, ratio) = (figure.name, figure.mpps, figure.empty_ratio);
        let undelivered = figure.undelivered.median * 100.0;
        let (added, ours) = (figure.added_ns, figure.minimizer_ratio);
        let ours = ours.map(|ours| format!("{ours:.2}")).unwrap_or_default();
        write!(out, "  {name:<16} {mpps:>18.2}   {ratio:>22.2}   {added:>22.1}   {ours:>20}")?;
        write!(out, "   {undelivered:>16.3}")?;
        match figure.lost {
            Some(lost) => writeln!(out, "   {:>20.3}", lost.times(100.0))?,
            None => writeln!(out)?,
        }
    }
    row.absent.iter().try_for_each(|what| writeln!(out, "  {what}"))
}
