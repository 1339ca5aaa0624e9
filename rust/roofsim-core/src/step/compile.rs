//! From a model in a layout to the list of operations one rank runs in a step.

use super::{CompiledStep, Entry, RowOp, Rows};
use crate::engine::Engine;
use crate::error::Result;
use crate::format::{ComputeDType, KvFormat, WeightFormat};
use crate::hardware::Reach;
use crate::model::{
    Attention, FeedForward, Indexer, LatentAttention, Layer, Mixer, Model, Moe, Recurrent, Role, Shard, Span, Weight,
};
use crate::ops::attention::{AttentionShape, LatentHeads};
use crate::ops::moe::GroupedShape;
use crate::ops::{
    AttentionOp, Collective, CollectiveOp, DispatchOp, ElementwiseOp, GemmOp, GroupedGemmOp, QuantiseOp, SlowdownOp,
};
use crate::parallel::Layout;
use crate::roofline::Machine;

/// Collects entries; an operation equal to an earlier one of the same name only raises its count.
struct Builder<'a> {
    machine: &'a Machine<'a>,
    model: &'a Model,
    layout: Layout,
    kv_format: KvFormat,
    own: ComputeDType,
    /// Bytes of one activation element.
    width: f64,
    row_ops: Vec<Entry<RowOp>>,
    attention: Vec<Entry<AttentionOp>>,
}

impl CompiledStep {
    /// Compiles the step of the slowest rank. Under pipeline parallelism the list covers all stages, since a step's
    /// time is the latency through all of them.
    pub fn new(
        machine: &Machine<'_>,
        model: &Model,
        layout: Layout,
        kv_format: KvFormat,
        engine: Engine,
    ) -> Result<Self> {
        let own = model.activation_dtype();
        let mut builder = Builder {
            machine,
            model,
            layout,
            kv_format,
            own,
            width: own.operand_bits() as f64 / 8.0,
            row_ops: Vec::new(),
            attention: Vec::new(),
        };
        builder.embedding()?;
        for (layer, count) in model.kinds.iter().zip(model.counts()) {
            builder.layer(layer, count)?;
        }
        builder.stage_boundaries()?;
        builder.head()?;
        builder.slowdown();
        let experts = builder.row_ops.iter().any(|entry| matches!(entry.op, RowOp::GroupedGemm(_)));
        Ok(Self {
            row_ops: builder.row_ops,
            attention: builder.attention,
            engine,
            seconds_per_byte: machine.seconds_per_byte,
            joints: [true, false].map(|decodes| machine.calibration.intervals.joint(decodes, experts)),
        })
    }
}

impl Builder<'_> {
    fn push(&mut self, name: &'static str, count: u64, rows: Rows, op: RowOp) {
        if count == 0 {
            return;
        }
        match self.row_ops.iter_mut().find(|e| e.name == name && e.rows == rows && e.op == op) {
            Some(entry) => entry.count += count,
            None => self.row_ops.push(Entry { name, count, rows, op }),
        }
    }

    fn push_attention(&mut self, name: &'static str, count: u64, shape: AttentionShape) -> Result<()> {
        let op = AttentionOp::new(self.machine, shape)?;
        match self.attention.iter_mut().find(|e| e.op == op) {
            Some(entry) => entry.count += count,
            None => self.attention.push(Entry { name, count, rows: Rows::All, op }),
        }
        Ok(())
    }

    /// A kernel that moves `elements` activation elements a row.
    fn elementwise(&mut self, name: &'static str, count: u64, elements: u64, fixed_bytes: f64) {
        let op = ElementwiseOp::new(self.machine, elements as f64 * self.width, fixed_bytes);
        self.push(name, count, Rows::All, RowOp::Elementwise(op));
    }

    /// A norm over rows of `width` elements that moves `elements` activation elements a row.
    fn norm(&mut self, name: &'static str, count: u64, elements: u64, width: u64) {
        let op = ElementwiseOp::reducing(self.machine, elements as f64 * self.width, 0.0, width);
        self.push(name, count, Rows::All, RowOp::Elementwise(op));
    }

    fn all_reduce(&mut self, name: &'static str, count: u64, devices: u64) -> Result<()> {
        if devices > 1 {
            let bytes = self.model.hidden_size as f64 * self.width;
            let op = CollectiveOp::new(self.machine, Collective::AllReduce, devices, bytes)?;
            self.push(name, count, Rows::All, RowOp::Collective(op));
        }
        Ok(())
    }

    fn embedding(&mut self) -> Result<()> {
        // The gathered row is read, the hidden state written; a learned position table is one more gathered row.
        let tables = 1 + u64::from(self.model.embedding.position_rows > 0);
        let elements = tables * self.model.embedding.dim + self.model.hidden_size;
        self.elementwise("embedding", 1, elements, 0.0);
        self.all_reduce("embedding_all_reduce", 1, self.layout.tensor)
    }

    fn head(&mut self) -> Result<()> {
        let d = self.model.hidden_size;
        self.norm("final_norm", u64::from(self.model.final_norm_parameters > 0), 4 * d, d);
        let tp = self.layout.tensor;
        let columns = self.model.vocab_size.div_ceil(tp);
        let op = GemmOp::new(self.machine, columns, self.model.embedding.dim, self.model.dtype, self.own)?;
        self.push("lm_head", 1, Rows::Last, RowOp::Gemm(op));
        if tp > 1 {
            let bytes = (columns * tp) as f64 * self.width;
            let op = CollectiveOp::new(self.machine, Collective::AllGather, tp, bytes)?;
            self.push("logits_all_gather", 1, Rows::Last, RowOp::Collective(op));
        }
        Ok(())
    }

    /// What the arithmetic of the step costs more as the clock falls. Under pipeline parallelism each stage works on
    /// other microbatches meanwhile: a device does as much as one that had all stages.
    fn slowdown(&mut self) {
        let per_row = |entry: &Entry<RowOp>| match &entry.op {
            RowOp::Gemm(op) if entry.rows == Rows::All => entry.count as f64 * op.peak_seconds_per_row(),
            RowOp::GroupedGemm(op) => entry.count as f64 * op.peak_seconds_per_row(),
            _ => 0.0,
        };
        let seconds_per_row = self.row_ops.iter().map(per_row).sum();
        let op = SlowdownOp::new(&self.machine.calibration.step, seconds_per_row);
        self.push("clock_slowdown", 1, Rows::All, RowOp::Slowdown(op));
    }

    fn stage_boundaries(&mut self) -> Result<()> {
        if self.layout.pipeline > 1 {
            // Each tensor rank sends its share of the hidden state to its counterpart in the next stage.
            let bytes = self.model.hidden_size as f64 * self.width / self.layout.tensor as f64;
            let Layout { tensor, pipeline, .. } = self.layout;
            let devices = tensor * pipeline;
            let route = self.machine.accelerator.route(devices).map(|route| route.levels).unwrap_or_default();
            // Hand-overs that leave the domains of the levels so far: all but those between stages that share one.
            let mut left = pipeline - 1;
            for level in route {
                let together = level.link.num_devices / tensor;
                let leaving = if together == 0 { left } else { pipeline.div_ceil(together) - 1 };
                let name = if level.reach == Reach::Network { "node_send" } else { "stage_send" };
                let among = devices.min(level.link.num_devices);
                let op = CollectiveOp::new(self.machine, Collective::PointToPoint, among, bytes)?;
                self.push(name, left - leaving, Rows::All, RowOp::Collective(op));
                left = leaving;
            }
        }
        Ok(())
    }

    fn layer(&mut self, layer: &Layer, count: u64) -> Result<()> {
        self.norms(layer, count);
        self.projections(layer, count)?;
        match &layer.mixer {
            Mixer::Attention(a) => {
                self.full_attention(a, count)?;
                self.attention_quantise(layer, a.num_heads * a.v_head_dim, count);
            }
            Mixer::Latent(a) => {
                self.latent_attention(layer, a, count)?;
                self.attention_quantise(layer, a.num_heads * a.v_head_dim, count);
            }
            Mixer::Recurrent(r) => self.recurrence(r, count),
            Mixer::None => {}
        }
        if !matches!(layer.mixer, Mixer::None) && !layer.parallel_residual {
            self.all_reduce("mixer_all_reduce", count, self.layout.tensor)?;
        }
        match &layer.feed_forward {
            FeedForward::Dense(f) => {
                let width = (f.intermediate_size / self.layout.tensor) as f64;
                let read = if f.gated { 2.0 } else { 1.0 } * self.width;
                let op =
                    ElementwiseOp::new(self.machine, width * (read + self.operand_width(layer.formats.dense)), 0.0);
                self.push("activation", count, Rows::All, RowOp::Elementwise(op));
            }
            FeedForward::Moe(m) => self.moe(layer, m, count)?,
            FeedForward::None => {}
        }
        if !matches!(layer.feed_forward, FeedForward::None) {
            self.all_reduce("feed_forward_all_reduce", count, self.layout.tensor)?;
        }
        Ok(())
    }

    /// Bytes of an element as a product with weights of `format` reads it: narrower than an activation where the
    /// matrix units multiply a narrower type.
    fn operand_width(&self, format: WeightFormat) -> f64 {
        (format.compute(self.own).operand_bits() as f64 / 8.0).min(self.width)
    }

    /// The norms of a layer. A fused residual-add and norm reads the residual and the update, writes the new residual
    /// and the normed row, that one as wide as the products after it read it; a router reads full width.
    fn norms(&mut self, layer: &Layer, count: u64) {
        let mixer = (!matches!(layer.mixer, Mixer::None)).then(|| self.operand_width(layer.formats.mixer));
        let feed_forward = match &layer.feed_forward {
            FeedForward::Dense(_) => Some(self.operand_width(layer.formats.dense)),
            FeedForward::Moe(_) => Some(self.width),
            FeedForward::None => None,
        };
        let widths = match (mixer, feed_forward) {
            // One norm is read by both.
            (Some(m), Some(f)) if layer.num_norms == 1 => vec![m.max(f)],
            (m, f) => [m, f].into_iter().flatten().collect(),
        };
        let d = self.model.hidden_size;
        let mut widths = widths.into_iter();
        for _ in 0..layer.num_norms {
            let written = widths.next().unwrap_or(self.width);
            let op = ElementwiseOp::reducing(self.machine, d as f64 * (3.0 * self.width + written), 0.0, d);
            self.push("norm", count, Rows::All, RowOp::Elementwise(op));
        }
    }

    /// What attention returns, `features` a row over all ranks, narrowed for the product out of the mixer, unless the
    /// library's products were timed with that in them.
    fn attention_quantise(&mut self, layer: &Layer, features: u64, count: u64) {
        let dtype = layer.formats.mixer_output.compute(self.own);
        let written = self.operand_width(layer.formats.mixer_output);
        if written < self.width && !self.machine.calibration.gemm_law(dtype).counts_quantising() {
            let features = features.div_ceil(self.layout.tensor) as f64;
            let op = QuantiseOp::new(self.machine, features * (self.width + written));
            self.push("attention_quantise", count, Rows::All, RowOp::Quantise(op));
        }
    }

    /// The dense matrix products of a layer: tensors of the same name are one fused GEMM.
    fn projections(&mut self, layer: &Layer, count: u64) -> Result<()> {
        let weights = layer.weights(self.model.hidden_size, self.model.dtype);
        let mut projections = weights.iter().filter(|w| w.role == Role::Projection).peekable();
        while let Some(first) = projections.next() {
            let (mut n, k) = self.on_rank(first);
            while let Some(next) = projections.next_if(|w| w.name == first.name && w.format == first.format) {
                n += self.on_rank(next).0;
            }
            let dtype = first.format.compute(self.own);
            let op = GemmOp::new(self.machine, n, k, first.format, dtype)?;
            self.push(first.name, count, Rows::All, RowOp::Gemm(op));
        }
        Ok(())
    }

    /// `(n, k)` of a tensor on one rank.
    fn on_rank(&self, weight: &Weight) -> (u64, u64) {
        weight.on_rank(self.layout)
    }

    fn full_attention(&mut self, a: &Attention, count: u64) -> Result<()> {
        let tp = self.layout.tensor;
        let (heads, kv_heads) = (a.num_heads.div_ceil(tp), a.num_kv_heads.div_ceil(tp));
        let law = self.machine.calibration.attention_law(self.own, self.kv_format);
        // Reads and writes the queries and the keys.
        let rotated = 2 * (heads + kv_heads) * a.head_dim;
        if a.rotary && !a.qk_norm && law.rotates() {
            // In attention's own kernels: what is left is the bound's, so that no step is faster than its ideal.
            let op = ElementwiseOp::fused(self.machine, rotated as f64 * self.width);
            self.push("rotary", count, Rows::All, RowOp::Elementwise(op));
        } else if a.qk_norm || a.rotary {
            self.elementwise("rotary", count, rotated, 0.0);
        }
        if a.output_gate {
            self.elementwise("output_gate", count, 3 * heads * a.v_head_dim, 0.0);
        }
        let shape = AttentionShape {
            num_heads: heads,
            num_kv_heads: kv_heads,
            head_dim: a.head_dim,
            v_head_dim: a.v_head_dim,
            span: a.span,
            latent: None,
            dtype: self.own,
            kv_format: self.kv_format,
            fixed_bytes: 0,
        };
        self.push_attention("attention", count, shape)
    }

    fn latent_attention(&mut self, layer: &Layer, a: &LatentAttention, count: u64) -> Result<()> {
        let heads = a.num_heads.div_ceil(self.layout.tensor);
        let qk = a.qk_nope_head_dim + a.qk_rope_head_dim;
        // Norms of the query bottleneck and of the latent, and the rotary embedding of queries and the shared key.
        if let Some(rank) = a.q_lora_rank {
            self.norm("q_a_norm", count, 2 * rank, rank);
        }
        self.norm("kv_a_norm", count, 2 * a.kv_lora_rank, a.kv_lora_rank);
        self.elementwise("rotary", count, 2 * (heads + 1) * a.qk_rope_head_dim, 0.0);
        let up_bytes = layer
            .weights(self.model.hidden_size, self.model.dtype)
            .iter()
            .filter(|w| w.role == Role::LatentUp)
            .map(|w| {
                let (n, k) = self.on_rank(w);
                w.format.tensor_bytes(n, k).unwrap_or(0)
            })
            .sum();
        let shape = AttentionShape {
            num_heads: heads,
            num_kv_heads: heads,
            head_dim: qk,
            v_head_dim: a.v_head_dim,
            span: a.selection.map_or(Span::Full, |selection| Span::Selected(selection.top_k)),
            latent: Some(LatentHeads {
                kv_lora_rank: a.kv_lora_rank,
                qk_nope_head_dim: a.qk_nope_head_dim,
                qk_rope_head_dim: a.qk_rope_head_dim,
                v_head_dim: a.v_head_dim,
                projects: true,
            }),
            dtype: self.own,
            kv_format: self.kv_format,
            fixed_bytes: up_bytes,
        };
        if let Some(indexer) = a.selection.and_then(|selection| selection.indexer) {
            self.indexer(indexer, count)?;
        }
        self.push_attention("latent_attention", count, shape)
    }

    /// Scores of every earlier token: attention of one shared key without values, whole on every rank, whatever the
    /// tensor parallelism. Norm and rotary embedding of its queries and key are one kernel.
    fn indexer(&mut self, indexer: Indexer, count: u64) -> Result<()> {
        let Indexer { num_heads, head_dim } = indexer;
        self.elementwise("indexer_rotary", count, 2 * (num_heads + 1) * head_dim, 0.0);
        let shape = AttentionShape {
            num_heads,
            num_kv_heads: 1,
            head_dim,
            v_head_dim: 0,
            span: Span::Full,
            latent: None,
            dtype: self.own,
            kv_format: self.kv_format,
            fixed_bytes: 0,
        };
        self.push_attention("indexer", count, shape)
    }

    /// A recurrence reads and writes its state once per request and its inputs and outputs once per row.
    fn recurrence(&mut self, r: &Recurrent, count: u64) {
        let tp = self.layout.tensor as f64;
        let state = (r.state_elements * r.state_element_bytes) as f64 + r.conv_state_elements as f64 * self.width;
        let op = ElementwiseOp::new(self.machine, 2.0 * state / tp, 0.0);
        self.push("recurrent_state", count, Rows::Last, RowOp::Elementwise(op));
        self.elementwise("recurrence", count, (r.in_features + r.out_features) / self.layout.tensor, 0.0);
    }

    fn moe(&mut self, layer: &Layer, m: &Moe, count: u64) -> Result<()> {
        let (d, layout) = (self.model.hidden_size, self.layout);
        let shared = m.shared_intermediate_size / layout.tensor;
        if shared > 0 {
            self.elementwise("shared_activation", count, if m.gated { 3 } else { 2 } * shared, 0.0);
        }
        // Routing: softmax and top-k over the experts' scores (fp32), one row of k indices and weights out.
        let routing = ElementwiseOp::new(self.machine, (4 * m.num_experts + 8 * m.experts_per_token) as f64, 0.0);
        self.push("routing", count, Rows::All, RowOp::Elementwise(routing));
        // Rows that this rank's experts work on, per row of its own batch.
        let routed = (m.experts_per_token * layout.expert_replicas()) as f64 / layout.expert as f64;
        let row_bytes = m.latent_size.unwrap_or(d) as f64 * self.width;
        let dispatch = DispatchOp::new(self.machine, (routed + 1.0) * row_bytes);
        self.push("experts_dispatch", count, Rows::All, RowOp::Dispatch(dispatch));
        self.expert_exchange("dispatch_all_to_all", m, count)?;
        for weight in layer.weights(d, self.model.dtype).iter().filter(|w| w.role == Role::Expert) {
            let (n, k) = self.on_rank(weight);
            let shape = GroupedShape {
                num_experts: m.num_experts,
                experts_per_token: m.experts_per_token,
                expert_ranks: layout.expert,
                token_replicas: layout.expert_replicas(),
                n,
                k,
                format: weight.format,
                dtype: weight.format.compute(self.own),
                active_experts: None,
            };
            self.push(weight.name, count, Rows::All, RowOp::GroupedGemm(GroupedGemmOp::new(self.machine, shape)?));
        }
        let width = (m.intermediate_size / layout.expert_tensor()) as f64;
        let moved = if m.gated { 3.0 } else { 2.0 } * routed * width * self.width;
        let activation = ElementwiseOp::new(self.machine, moved, 0.0);
        self.push("experts_activation", count, Rows::All, RowOp::Elementwise(activation));
        let combine = ElementwiseOp::new(self.machine, (routed + 1.0) * row_bytes, 0.0);
        self.push("experts_combine", count, Rows::All, RowOp::Elementwise(combine));
        self.expert_exchange("combine_all_to_all", m, count)
    }

    /// Tokens travel between replicas when experts are spread over more ranks than share a batch.
    fn expert_exchange(&mut self, name: &'static str, m: &Moe, count: u64) -> Result<()> {
        let layout = self.layout;
        if layout.expert_replicas() == 1 {
            return Ok(());
        }
        // Expected distinct ranks that one token's experts live on; each gets one copy of the row.
        let ranks = layout.expert as f64;
        let mut missed = 1.0;
        for _ in 0..m.experts_per_token {
            missed *= 1.0 - 1.0 / ranks;
        }
        let copies = ranks * (1.0 - missed);
        let row = m.latent_size.unwrap_or(self.model.hidden_size);
        let bytes = copies * row as f64 * self.width / layout.tensor as f64;
        let op = CollectiveOp::new(self.machine, Collective::AllToAll, layout.expert, bytes)?;
        self.push(name, count, Rows::All, RowOp::Collective(op));
        Ok(())
    }
}

impl Weight {
    /// `(n, k)` of one copy on one rank of `layout`.
    pub fn on_rank(&self, layout: Layout) -> (u64, u64) {
        let tp = layout.tensor;
        match self.shard {
            Shard::Column => (self.n.div_ceil(tp), self.k),
            Shard::Row => (self.n, self.k.div_ceil(tp)),
            Shard::KvHeads { heads } => (self.n / heads * heads.div_ceil(tp), self.k),
            Shard::Replicated => (self.n, self.k),
            Shard::ExpertColumn => (self.n.div_ceil(layout.expert_tensor()), self.k),
            Shard::ExpertRow => (self.n, self.k.div_ceil(layout.expert_tensor())),
        }
    }
}
