//! Which pool a node belongs to.

use accelerator_api::Reason;
use accelerator_api::contract::NPU_FAMILY_LABEL;

use super::Request;
use crate::image_tag::Variable;
use crate::node::NodeView;
use crate::pool::PoolKey;

/// The pool of a node, or why it has none.
pub(super) fn assign(request: &Request, node: &NodeView) -> Result<PoolKey, (Reason, String)> {
    let mut key = PoolKey::default();
    for variable in request.image.variables() {
        match variable {
            Variable::Family => key.family = Some(family(node)?),
            Variable::Os => key.os = Some(known(node.os.as_ref(), "operating system")?),
            Variable::Kernel => key.kernel = Some(known(node.kernel.as_ref(), "kernel")?),
            Variable::Arch => key.arch = Some(known(node.arch.as_ref(), "architecture")?),
        }
    }
    Ok(key)
}

fn known(value: Option<&String>, what: &str) -> Result<String, (Reason, String)> {
    value.cloned().ok_or_else(|| {
        let why = format!(
            "its {what}, which the tag of the driver's image needs, is not known from labels of Node Feature Discovery \
             or from status.nodeInfo"
        );
        (Reason::KernelUnknown, why)
    })
}

fn family(node: &NodeView) -> Result<String, (Reason, String)> {
    let why = match node.families.as_slice() {
        [family] => return Ok(family.clone()),
        [] => format!(
            "the family of its NPUs, which the driver's image needs, is not known: neither a label {NPU_FAMILY_LABEL} nor one of \
             Node Feature Discovery with a known PCI device id is there"
        ),
        families => format!(
            "it has NPUs of {} families ({}), and the driver's image is for one",
            families.len(),
            families.join(", ")
        ),
    };
    Err((Reason::FamilyUnknown, why))
}
