//! The formats in which Prometheus reads metrics, and which one a scrape gets.

/// A format of metrics that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
    /// Prometheus protobuf, which has native histograms.
    Protobuf,
}

impl ExpositionFormat {
    /// The format to which an `Accept` header gives the greatest weight. Of equal weights protobuf wins over OpenMetrics,
    /// because a client that offers protobuf wants its native histograms. All others get text, which everything reads.
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        let [mut protobuf, mut open_metrics, mut text] = [0.0_f32; 3];
        for range in accept.split(',') {
            let mut parameters = range.split(';').map(str::trim);
            let media_type = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let mut weight = 1.0;
            let mut version = "1.0.0";
            let (mut message, mut encoding) = ("", "");
            for parameter in parameters {
                match parameter.split_once('=') {
                    Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value.trim_matches('"'),
                    Some(("proto", value)) => message = value.trim_matches('"'),
                    Some(("encoding", value)) => encoding = value.trim_matches('"'),
                    _ => {}
                }
            }
            match media_type.as_str() {
                "application/vnd.google.protobuf"
                    if message == "io.prometheus.client.MetricFamily" && encoding == "delimited" =>
                {
                    protobuf = protobuf.max(weight);
                }
                "application/openmetrics-text" if version == "1.0.0" => open_metrics = weight,
                "text/plain" | "text/*" => text = text.max(weight),
                _ => {}
            }
        }
        if protobuf > 0.0 && protobuf >= open_metrics.max(text) {
            Self::Protobuf
        } else if open_metrics > 0.0 && open_metrics >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The `Content-Type` of an answer in this format.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ExpositionFormat;

    #[test]
    fn open_metrics_only_for_those_who_ask_for_it() {
        let cases = [
            ("", ExpositionFormat::Text),
            ("*/*", ExpositionFormat::Text),
            ("text/plain;version=0.0.4", ExpositionFormat::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", ExpositionFormat::Text),
            ("application/openmetrics-text", ExpositionFormat::OpenMetrics),
            // What Prometheus 2.42 sends.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ExpositionFormat::OpenMetrics,
            ),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.1", ExpositionFormat::Text),
            ("application/openmetrics-text; version=0.0.1", ExpositionFormat::Text),
            ("application/openmetrics-text;q=0", ExpositionFormat::Text),
            ("APPLICATION/OpenMetrics-Text; q=0.5", ExpositionFormat::OpenMetrics),
            (";;,,q=;", ExpositionFormat::Text),
        ];
        for (accept, format) in cases {
            assert_eq!(ExpositionFormat::negotiate(accept), format, "{accept}");
        }
    }
}
