//! What a reader of a ranking must know before believing it: kernels of several libraries, prices of several kinds.

use std::collections::BTreeMap;

use super::Offer;
use crate::calibration::{Calibration, mixed_libraries};
use crate::engine::Engine;
use crate::hardware::PRICE_KINDS;

/// One sentence for each thing that sets the offers apart beside the devices.
pub(super) fn notes(offers: &[Offer], engine: Engine) -> Vec<String> {
    let defaults: Vec<Calibration> = offers
        .iter()
        .map(|offer| match &offer.calibration {
            Some(own) => Calibration::clone(own),
            None => Calibration::default_for(&offer.accelerator),
        })
        .collect();
    let devices = || offers.iter().map(|offer| &*offer.accelerator).zip(&defaults);
    let mut notes: Vec<String> = mixed_libraries(devices()).into_iter().collect();
    notes.extend(other_kernels(devices().map(|(device, own)| (device.name.as_str(), own)), engine));
    notes.extend(mixed_prices(offers));
    notes.extend(offers.iter().filter_map(unpriced));
    notes
}

/// An engine's rules on kernels of another library.
fn other_kernels<'a>(devices: impl Iterator<Item = (&'a str, &'a Calibration)>, engine: Engine) -> Option<String> {
    if engine != Engine::Vllm {
        return None;
    }
    let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (device, calibration) in devices.filter(|(_, c)| !c.is_ideal() && c.kernel_library != "vllm") {
        others.entry(&calibration.kernel_library).or_default().push(device);
    }
    let named: Vec<String> =
        others.iter().map(|(library, devices)| format!("{library} ({})", devices.join(", "))).collect();
    (!named.is_empty()).then(|| {
        format!(
            "Engine vllm sets vLLM's rules, not its kernels, which are those of {}; calibration vllm takes vLLM's own \
             where they were measured.",
            named.join(", ")
        )
    })
}

fn mixed_prices(offers: &[Offer]) -> Option<String> {
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for offer in offers.iter().filter(|offer| offer.usd_per_hour.is_some()) {
        kinds.entry(&offer.price_kind).or_default().push(&offer.accelerator.name);
    }
    (kinds.len() > 1).then(|| {
        let parts: Vec<String> = kinds.iter().map(|(kind, names)| format!("{kind} ({})", names.join(", "))).collect();
        format!("Prices of different kinds stand side by side: {}.", parts.join(", "))
    })
}

/// A device without a price of the kind in force, and the prices of other kinds that it has.
fn unpriced(offer: &Offer) -> Option<String> {
    if offer.usd_per_hour.is_some() {
        return None;
    }
    let device = &offer.accelerator;
    let known: Vec<String> = PRICE_KINDS
        .into_iter()
        .filter_map(|kind| Some(format!("{kind} ${:.2}", device.usd_per_hour(kind).ok().flatten()?)))
        .collect();
    let kind = if offer.price_kind.is_empty() { String::new() } else { format!("{} ", offer.price_kind) };
    Some(if known.is_empty() {
        format!("No price of {} is known: it ranks last by price until you give one.", device.name)
    } else {
        let name = &device.name;
        format!("No {kind}price of {name} is known, so it ranks last by price; what is: {} an hour.", known.join(", "))
    })
}
