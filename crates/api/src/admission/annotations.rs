//! The annotations of a revision's template.

use std::collections::BTreeMap;

use crate::{
    autoscaling::{annotations as keys, bounds},
    config::AutoscalerConfig,
    duration,
    field_error::{FieldError, FieldErrors, HERE},
    labels::networking,
    number::show_float,
    quantity::Quantity,
};

type Annotations = BTreeMap<String, String>;

/// Checks the autoscaling annotations.
pub(super) fn validate(annotations: &Annotations, config: &AutoscalerConfig) -> FieldErrors {
    let mut errors = validate_class(annotations);
    errors.also(validate_scales(annotations, config));
    errors.also(validate_numbers(annotations));
    errors.also(validate_window(annotations));
    errors.also(validate_span(annotations, keys::SCALE_TO_ZERO_POD_RETENTION_PERIOD, false));
    errors.also(validate_span(annotations, keys::SCALE_DOWN_DELAY, true));
    errors.also(validate_metric(annotations, config));
    errors.also(validate_algorithm(annotations));
    errors.also(validate_initial_scale(annotations, config));
    errors
}

fn validate_class(annotations: &Annotations) -> FieldErrors {
    let (key, class) = keys::CLASS.find(annotations).unwrap_or_default();
    // Classes under our own domain are ours to name; others belong to somebody else.
    let is_unknown = class.ends_with(keys::GROUP) && class != keys::KPA && class != keys::HPA;
    is_unknown.then(|| FieldError::invalid(class, key)).into()
}

/// A scale that may be zero. Problems read as zero afterwards.
fn scale(annotations: &Annotations, key: keys::AnnotationKey, errors: &mut FieldErrors) -> i32 {
    let Some((key, raw)) = key.find(annotations) else { return 0 };
    match raw.parse::<i128>() {
        Err(_) => errors.push(FieldError::invalid(raw, key)),
        Ok(value) => match i32::try_from(value) {
            Ok(value) if value >= 0 => return value,
            _ => errors.push(FieldError::out_of_bounds(raw, 0, i32::MAX, key)),
        },
    }
    0
}

fn validate_scales(annotations: &Annotations, config: &AutoscalerConfig) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let min = scale(annotations, keys::MIN_SCALE, &mut errors);
    let max = scale(annotations, keys::MAX_SCALE, &mut errors);
    if max != 0 && max < min {
        let message = format!("max-scale={max} is less than min-scale={min}");
        errors.push(FieldError::new(message, &[keys::MAX_SCALE.name(), keys::MIN_SCALE.name()]));
    }
    let limit = config.max_scale_limit;
    if let Some((key, _)) = keys::MAX_SCALE.find(annotations).filter(|_| limit != 0) {
        if max > limit {
            errors.push(FieldError::out_of_bounds(max, 1, limit, key));
        }
        if max == 0 {
            errors.push(FieldError::new(format!("max-scale=0 (unlimited), must be less than {limit}"), &[key]));
        }
    }
    if let Some((key, raw)) = keys::ACTIVATION_SCALE.find(annotations) {
        errors.also(validate_activation_scale(key, raw, min, max));
    }
    errors
}

fn validate_activation_scale(key: &str, raw: &str, min: i32, max: i32) -> Option<FieldError> {
    let Ok(value) = raw.parse::<i32>() else { return Some(FieldError::invalid(raw, key)) };
    let message = if min > value {
        format!("min-scale={min} is greater than activation-scale={value}")
    } else if max != 0 && max < value {
        format!("max-scale={max} is less than activation-scale={value}")
    } else if value < 2 {
        format!("activation-scale={value} must be greater than 1")
    } else {
        return None;
    };
    Some(FieldError::new(message, &[key]))
}

fn validate_numbers(annotations: &Annotations) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for (key, range) in [
        (keys::PANIC_WINDOW_PERCENTAGE, bounds::PANIC_WINDOW_PERCENT),
        (keys::PANIC_THRESHOLD_PERCENTAGE, bounds::PANIC_THRESHOLD_PERCENT),
        (keys::TARGET_UTILIZATION_PERCENTAGE, bounds::UTILIZATION_PERCENT),
    ] {
        let Some((name, raw)) = key.find(annotations) else { continue };
        match number(raw) {
            None => errors.push(FieldError::invalid(raw, name)),
            Some(value) if !range.contains(&value) => {
                let (low, high) = (show_float(*range.start()), show_float(*range.end()));
                errors.push(FieldError::out_of_bounds(raw, low, high, name));
            }
            Some(_) => {}
        }
    }
    if let Some((name, raw)) = keys::TARGET.find(annotations) {
        match number(raw) {
            None => errors.push(FieldError::invalid(raw, name)),
            Some(value) if value < bounds::TARGET_MIN => {
                let message = format!("target {raw} should be at least {}", bounds::TARGET_MIN);
                errors.push(FieldError::new(message, &[name]));
            }
            Some(_) => {}
        }
    }
    if let Some((name, raw)) = keys::TARGET_BURST_CAPACITY.find(annotations) {
        #[expect(clippy::float_cmp, reason = "-1 is a name, not a measurement")]
        let is_valid = number(raw).is_some_and(|value| value >= 0.0 || value == -1.0);
        if !is_valid {
            errors.push(FieldError::invalid(raw, name));
        }
    }
    errors
}

fn number(raw: &str) -> Option<f64> {
    raw.parse().ok().filter(|value: &f64| !value.is_nan())
}

fn longest_window() -> i64 {
    i64::try_from(bounds::WINDOW_MAX.as_nanos()).unwrap_or(i64::MAX)
}

fn validate_window(annotations: &Annotations) -> FieldErrors {
    let Some((key, raw)) = keys::WINDOW.find(annotations) else { return FieldErrors::none() };
    let (shortest, longest) = (bounds::WINDOW_MIN, bounds::WINDOW_MAX);
    match duration::parse(raw) {
        Err(_) => FieldError::invalid(raw, key).into(),
        Ok(span) if span < 0 || !(shortest..=longest).contains(&duration::to_std(span)) => {
            let (low, high) = (duration::format_std(shortest), duration::format_std(longest));
            FieldError::out_of_bounds(raw, low, high, key).into()
        }
        Ok(span) => precision_error(span, key).into(),
    }
}

fn precision_error(span: i64, key: &str) -> Option<FieldError> {
    let is_whole = span % duration::SECOND == 0;
    (!is_whole).then(|| FieldError::new("must be specified with at most second precision", &[key]))
}

fn validate_span(annotations: &Annotations, key: keys::AnnotationKey, whole_seconds: bool) -> FieldErrors {
    let Some((key, raw)) = key.find(annotations) else { return FieldErrors::none() };
    match duration::parse(raw) {
        Err(_) => FieldError::invalid(raw, key).into(),
        Ok(span) if !(0..=longest_window()).contains(&span) => {
            FieldError::out_of_bounds(raw, "0s", duration::format(longest_window()), key).into()
        }
        Ok(span) if whole_seconds => precision_error(span, key).into(),
        Ok(_) => FieldErrors::none(),
    }
}

fn validate_metric(annotations: &Annotations, config: &AutoscalerConfig) -> FieldErrors {
    let Some((key, metric)) = keys::METRIC.find(annotations) else { return FieldErrors::none() };
    let class = keys::CLASS.get(annotations).unwrap_or(&config.pod_autoscaler_class);
    let is_known = match class {
        keys::KPA => metric == keys::CONCURRENCY || metric == keys::RPS,
        keys::HPA => !metric.is_empty(),
        _ => true,
    };
    (!is_known).then(|| FieldError::invalid(metric, key)).into()
}

fn validate_algorithm(annotations: &Annotations) -> FieldErrors {
    if keys::CLASS.get(annotations) != Some(keys::KPA) {
        return FieldErrors::none();
    }
    let (key, algorithm) = keys::METRIC_AGGREGATION_ALGORITHM.find(annotations).unwrap_or_default();
    let is_known = matches!(algorithm, "" | "linear" | "weighted-exponential" | "weightedExponential");
    (!is_known).then(|| FieldError::invalid(algorithm, key)).into()
}

fn validate_initial_scale(annotations: &Annotations, config: &AutoscalerConfig) -> FieldErrors {
    let Some((key, raw)) = keys::INITIAL_SCALE.find(annotations) else { return FieldErrors::none() };
    match raw.parse::<i64>() {
        Err(_) => FieldError::invalid(raw, key).into(),
        Ok(value) if value < 0 => FieldError::invalid(raw, &format!("{key} must be greater than 0")).into(),
        Ok(0) if !config.allow_zero_initial_scale => {
            FieldError::invalid(raw, &format!("{key}=0 not allowed by cluster")).into()
        }
        Ok(_) => FieldErrors::none(),
    }
}

/// Checks that the public networking annotations are ones that exist.
pub(super) fn validate_networking(annotations: &Annotations) -> FieldErrors {
    const KNOWN: [&str; 9] = [
        "ingress.class",
        "ingress-class",
        "certificate.class",
        "certificate-class",
        "disableAutoTLS",
        "disable-auto-tls",
        "disable-external-domain-tls",
        "httpOption",
        "http-protocol",
    ];
    let prefix = networking::PREFIX.trim_end_matches('/');
    let unknown = annotations.keys().filter(|key| {
        let name = key.strip_prefix(networking::PREFIX);
        key.starts_with(prefix) && !name.is_some_and(|name| KNOWN.contains(&name))
    });
    unknown.map(|key| FieldError::invalid_key(key, HERE)).collect()
}

/// Checks the annotations that size the queue container.
pub(super) fn validate_queue_resources(annotations: &Annotations) -> FieldErrors {
    const PREFIX: &str = "queue.sidecar.serving.knative.dev/";
    let find = |name: &str| annotations.get_key_value(&format!("{PREFIX}{name}"));
    let mut errors = FieldErrors::none();
    if let Some((key, raw)) = find("resource-percentage").or_else(|| find("resourcePercentage")) {
        let message = "Queue proxy resource percentage annotation is deprecated. Please use the available annotations \
                       to explicitly set resource values per service";
        // The notice has no path of its own, so the key does not show in it.
        errors.push(FieldError::new(message, &[]).as_warning());
        match number(raw) {
            None => errors.also(FieldErrors::from(FieldError::invalid(raw, HERE)).via_key(key)),
            Some(value) if !(0.1..=100.0).contains(&value) => {
                let error = FieldError::out_of_bounds(show_float(value), "0.1", "100", HERE);
                errors.also(FieldErrors::from(error).via_key(key));
            }
            Some(_) => {}
        }
    }
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        for what in ["request", "limit"] {
            let Some((key, raw)) = find(&format!("{resource}-resource-{what}")) else { continue };
            if Quantity::parse(raw).is_err() {
                errors.also(FieldErrors::from(FieldError::invalid(raw, HERE)).via_key(key));
            }
        }
    }
    errors
}
