//! A deployment: a model on accelerators in a layout with formats. Compiled once, then costed per step.

use crate::calibration::Calibration;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::{KvFormat, WeightFormat};
use crate::hardware::Accelerator;
use crate::model::{Model, Role};
use crate::parallel::{Infeasible, Layout, Status};
use crate::roofline::{Machine, OpCost, Pace};
use crate::step::CompiledStep;
use std::sync::Arc;

/// What a deployment is made of, before it is checked and compiled.
#[derive(Debug, Clone)]
pub struct DeploymentSpec {
    /// The model, in its published formats.
    pub model: Arc<Model>,
    /// The device.
    pub accelerator: Arc<Accelerator>,
    /// The laws; `None` is the default calibration of the device.
    pub calibration: Option<Arc<Calibration>>,
    /// Parallel sizes.
    pub layout: Layout,
    /// Storage of projections and experts; `None` is as published.
    pub weight_format: Option<WeightFormat>,
    /// Storage of the KV cache; `None` is as published.
    pub kv_format: Option<KvFormat>,
    /// Runtime rules.
    pub engine: Engine,
}

/// A checked and compiled deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// The model in the formats it is served in.
    pub model: Arc<Model>,
    /// The device.
    pub accelerator: Arc<Accelerator>,
    /// The laws in force.
    pub calibration: Arc<Calibration>,
    /// Parallel sizes.
    pub layout: Layout,
    /// Storage of the KV cache.
    pub kv_format: KvFormat,
    /// Runtime rules.
    pub engine: Engine,
    /// The operations of one step.
    pub step: CompiledStep,
}

impl DeploymentSpec {
    /// Checks and compiles; a configuration that no engine would run is an error naming field, value and rule.
    pub fn compile(self) -> Result<Deployment> {
        self.try_compile()?.map_err(Error::from)
    }

    /// As [`Self::compile`], with infeasible configurations as a value: what a sweep needs.
    pub fn try_compile(self) -> Result<std::result::Result<Deployment, Infeasible>> {
        let model = match self.weight_format {
            None => Arc::clone(&self.model),
            Some(format) => Arc::new(self.model.with_weight_format(format)),
        };
        let accelerator = self.accelerator;
        if let Err(reason) = self.layout.check(&model).and_then(|()| check_device(&model, &accelerator, self.layout)) {
            return Ok(Err(reason));
        }
        let calibration = self.calibration.unwrap_or_else(|| Arc::new(Calibration::default_for(&accelerator)));
        let kv_format = self.kv_format.unwrap_or(model.kv_cache_format);
        let machine = Machine::new(&accelerator, &calibration, Pace::Step);
        let step = CompiledStep::new(&machine, &model, self.layout, kv_format, self.engine)?;
        Ok(Ok(Deployment {
            model,
            calibration,
            layout: self.layout,
            kv_format,
            engine: self.engine,
            step,
            accelerator,
        }))
    }
}

impl Deployment {
    /// Joules of a step of this cost over all devices, where the device's power was measured.
    ///
    /// A cost spans all stages of a pipeline, each of which serves other microbatches meanwhile: a step pays for the
    /// time of one stage's worth of devices.
    pub fn energy_j(&self, cost: &OpCost) -> Option<f64> {
        let power = self.calibration.power?;
        let replicas = (self.layout.num_devices() / self.layout.pipeline) as f64;
        Some(replicas * power.energy_j(cost.time_s, cost.peak_compute_s, cost.bytes * self.step.seconds_per_byte))
    }
}

/// Whether the device multiplies every format the model is stored in, and whether links join the ranks.
fn check_device(model: &Model, device: &Accelerator, layout: Layout) -> std::result::Result<(), Infeasible> {
    let own = model.activation_dtype();
    let formats = model.kinds.iter().flat_map(|layer| layer.weights(model.hidden_size, model.dtype));
    // No matrix unit multiplies vectors, whatever they are stored in.
    let matrices = formats.filter(|w| w.role != Role::Vector);
    for format in matrices.map(|w| w.format).chain([model.dtype]) {
        let dtype = format.compute(own);
        if device.peak(dtype).is_err() {
            let known: Vec<&str> = device.peak_flops_per_s.keys().map(|d| d.name()).collect();
            let rule = format!("{} has no {} peak (it has {})", device.name, dtype.name(), known.join(", "));
            return Err(Infeasible::new(Status::FormatNotSupported, "weight_dtype", format.name(), rule));
        }
    }
    let joined = [
        ("tensor_parallel_size", layout.tensor),
        ("pipeline_parallel_size", if layout.pipeline > 1 { layout.tensor * layout.pipeline } else { 1 }),
        ("expert_parallel_size", layout.expert),
    ];
    for (field, devices) in joined {
        if devices > 1 && device.route(devices).is_none() {
            let rule = format!("{} has no link, network or host_link that joins {devices} devices", device.name);
            return Err(Infeasible::new(Status::NoLink, field, devices, rule));
        }
    }
    Ok(())
}
