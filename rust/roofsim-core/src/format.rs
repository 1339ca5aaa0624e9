//! Number formats: what an element costs to store, to move and to multiply.
//!
//! Three different things are called "dtype" in the field and are kept apart here:
//! [`ComputeDType`] is what the matrix units multiply (it selects a peak), [`WeightFormat`] is how a weight tensor is
//! stored with its scales, [`KvFormat`] is how the KV cache is stored. They are independent of each other.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The operand type of the matrix units; selects the accelerator's peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDType {
    /// 32-bit floating point outside the tensor units.
    Fp32,
    /// 19-bit TensorFloat.
    Tf32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision, accumulated in 32 bits.
    Fp16,
    /// 8-bit floating point (either variant).
    Fp8,
    /// 8-bit integer.
    Int8,
    /// 4-bit floating point.
    Fp4,
}

impl ComputeDType {
    /// All of them, in declaration order.
    pub const ALL: [Self; 7] = [Self::Fp32, Self::Tf32, Self::Bf16, Self::Fp16, Self::Fp8, Self::Int8, Self::Fp4];

    /// The name used in specs and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
            Self::Fp4 => "fp4",
        }
    }

    /// Bits one activation operand takes in HBM.
    pub const fn operand_bits(self) -> u64 {
        match self {
            Self::Fp32 | Self::Tf32 => 32,
            Self::Bf16 | Self::Fp16 => 16,
            Self::Fp8 | Self::Int8 => 8,
            Self::Fp4 => 4,
        }
    }

    /// Parses a name as people write it (`bf16`, `bfloat16`, `torch.float8_e4m3fn`, ...).
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let bare = text.trim().to_ascii_lowercase();
        let bare = bare.strip_prefix("torch.").unwrap_or(&bare);
        Ok(match bare {
            "fp32" | "float32" | "float" | "f32" => Self::Fp32,
            "tf32" | "tensorfloat32" => Self::Tf32,
            "bf16" | "bfloat16" => Self::Bf16,
            "fp16" | "float16" | "half" | "f16" => Self::Fp16,
            "fp8" | "fp8_e4m3" | "fp8_e5m2" | "float8_e4m3fn" | "float8_e5m2" | "e4m3" | "e5m2" => Self::Fp8,
            "int8" | "i8" => Self::Int8,
            "fp4" | "nvfp4" | "mxfp4" | "float4_e2m1fn_x2" => Self::Fp4,
            _ => return Err(Error::spec(field, text, "must be one of fp32, tf32, bf16, fp16, fp8, int8, fp4")),
        })
    }
}

/// How a weight tensor of `n` rows (outputs) by `k` columns (inputs) is stored, scales included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightFormat {
    /// 32-bit floating point.
    Fp32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    Fp16,
    /// 8-bit floating point, one fp32 scale per tensor.
    Fp8,
    /// 8-bit floating point, one fp32 scale per output channel.
    Fp8Channel,
    /// 8-bit floating point, one fp32 scale per 128 x 128 block (DeepSeek).
    Fp8Block,
    /// 8-bit integer, one fp32 scale per output channel.
    Int8,
    /// 4-bit integer, weight only, one bf16 scale per 128 inputs of an output channel (GPTQ, AWQ without zero points).
    Int4,
    /// 4-bit integer, weight only, one bf16 scale per 32 inputs of an output channel (compressed-tensors, group 32).
    Int4G32,
    /// OCP microscaling FP4, weight only, one 8-bit exponent per 32 inputs: 0.53125 bytes an element.
    MxFp4,
    /// NVIDIA FP4, one fp8 scale per 16 inputs and one fp32 scale per tensor: 0.5625 bytes an element.
    NvFp4,
}

impl WeightFormat {
    /// All of them, in declaration order.
    pub const ALL: [Self; 11] = [
        Self::Fp32,
        Self::Bf16,
        Self::Fp16,
        Self::Fp8,
        Self::Fp8Channel,
        Self::Fp8Block,
        Self::Int8,
        Self::Int4,
        Self::Int4G32,
        Self::MxFp4,
        Self::NvFp4,
    ];

    /// The name used in specs and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Fp8 => "fp8",
            Self::Fp8Channel => "fp8-channel",
            Self::Fp8Block => "fp8-block",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Int4G32 => "int4-g32",
            Self::MxFp4 => "mxfp4",
            Self::NvFp4 => "nvfp4",
        }
    }

    /// Bits of one element without its scales.
    pub const fn element_bits(self) -> u64 {
        match self {
            Self::Fp32 => 32,
            Self::Bf16 | Self::Fp16 => 16,
            Self::Fp8 | Self::Fp8Channel | Self::Fp8Block | Self::Int8 => 8,
            Self::Int4 | Self::Int4G32 | Self::MxFp4 | Self::NvFp4 => 4,
        }
    }

    /// What the matrix units multiply when a weight in this format meets an activation, given the model's own dtype.
    ///
    /// 8-bit and NVFP4 weights meet activations quantised to the same width. Four-bit integers and MXFP4 are
    /// weight-only: they are expanded on the way to the matrix unit and multiplied at the activation's own width.
    pub const fn compute(self, activations: ComputeDType) -> ComputeDType {
        match self {
            Self::Fp32 => ComputeDType::Fp32,
            Self::Bf16 => ComputeDType::Bf16,
            Self::Fp16 => ComputeDType::Fp16,
            Self::Fp8 | Self::Fp8Channel | Self::Fp8Block => ComputeDType::Fp8,
            Self::Int8 => ComputeDType::Int8,
            Self::NvFp4 => ComputeDType::Fp4,
            Self::Int4 | Self::Int4G32 | Self::MxFp4 => activations,
        }
    }

    /// True for formats with scales, that is for everything but plain floating point.
    pub const fn is_quantised(self) -> bool {
        !matches!(self, Self::Fp32 | Self::Bf16 | Self::Fp16)
    }

    /// Bytes of an `n` by `k` tensor with its scales, exact; `None` on overflow.
    pub fn tensor_bytes(self, n: u64, k: u64) -> Option<u64> {
        let elements = n.checked_mul(k)?;
        let bits = elements.checked_mul(self.element_bits())?;
        let payload = bits.div_ceil(8);
        let scales = match self {
            Self::Fp32 | Self::Bf16 | Self::Fp16 => 0,
            Self::Fp8 => 4,
            Self::Fp8Channel | Self::Int8 => n.checked_mul(4)?,
            Self::Fp8Block => n.div_ceil(128).checked_mul(k.div_ceil(128))?.checked_mul(4)?,
            Self::Int4 => n.checked_mul(k.div_ceil(128))?.checked_mul(2)?,
            Self::Int4G32 => n.checked_mul(k.div_ceil(32))?.checked_mul(2)?,
            Self::MxFp4 => n.checked_mul(k.div_ceil(32))?,
            Self::NvFp4 => n.checked_mul(k.div_ceil(16))?.checked_add(4)?,
        };
        payload.checked_add(scales)
    }

    /// Parses a name as people write it.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let bare = text.trim().to_ascii_lowercase();
        let bare = bare.strip_prefix("torch.").unwrap_or(&bare).replace('_', "-");
        Ok(match bare.as_str() {
            "fp32" | "float32" | "float" => Self::Fp32,
            "bf16" | "bfloat16" => Self::Bf16,
            "fp16" | "float16" | "half" => Self::Fp16,
            "fp8" | "fp8-e4m3" | "float8-e4m3fn" => Self::Fp8,
            "fp8-channel" => Self::Fp8Channel,
            "fp8-block" => Self::Fp8Block,
            "int8" => Self::Int8,
            "int4" | "w4a16" | "awq" | "gptq" => Self::Int4,
            "int4-g32" => Self::Int4G32,
            "mxfp4" => Self::MxFp4,
            "nvfp4" | "fp4" => Self::NvFp4,
            _ => {
                return Err(Error::spec(
                    field,
                    text,
                    "must be one of fp32, bf16, fp16, fp8, fp8-channel, fp8-block, int8, int4, int4-g32, mxfp4, nvfp4",
                ));
            }
        })
    }
}

/// How one element of the KV cache is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvFormat {
    /// 32-bit floating point.
    Fp32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    Fp16,
    /// 8-bit floating point, scales per tensor (not counted: a few bytes a layer).
    Fp8,
    /// 8-bit integer, scales per tensor (not counted).
    Int8,
}

impl KvFormat {
    /// All of them, in declaration order.
    pub const ALL: [Self; 5] = [Self::Fp32, Self::Bf16, Self::Fp16, Self::Fp8, Self::Int8];

    /// The name used in specs and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of one element.
    pub const fn element_bytes(self) -> u64 {
        match self {
            Self::Fp32 => 4,
            Self::Bf16 | Self::Fp16 => 2,
            Self::Fp8 | Self::Int8 => 1,
        }
    }

    /// Parses a name as people write it.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let bare = text.trim().to_ascii_lowercase();
        let bare = bare.strip_prefix("torch.").unwrap_or(&bare);
        Ok(match bare {
            "fp32" | "float32" => Self::Fp32,
            "bf16" | "bfloat16" => Self::Bf16,
            "fp16" | "float16" | "half" => Self::Fp16,
            "fp8" | "fp8_e4m3" | "fp8_e5m2" | "float8_e4m3fn" | "float8_e5m2" => Self::Fp8,
            "int8" => Self::Int8,
            _ => return Err(Error::spec(field, text, "must be one of fp32, bf16, fp16, fp8, int8")),
        })
    }
}
