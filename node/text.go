package node

import (
	"fmt"
	"slices"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// badText returns the text of op, quoted, that the table refuses in a field because it
// contains characters that cannot be printed; "" if there is none. The results of the table
// have reasons and no texts.
func badText(op *apiv1.Operation, field string) string {
	for _, text := range textsOf(op, field) {
		if !fsm.Plain(text) {
			return fmt.Sprintf("%.100q: ", text)
		}
	}
	return ""
}

// textsOf returns the texts that op has in a field. The table names the fields.
func textsOf(op *apiv1.Operation, field string) (texts []string) {
	acquire, open, force := op.GetAcquire(), op.GetOpenSession(), op.GetForceRelease()
	switch field {
	case "lock":
		for _, l := range acquire.GetLocks() {
			texts = append(texts, l.GetName())
		}
	case "holder":
		texts = append(texts, acquire.GetHolder(), open.GetHolder())
	case "labels":
		for _, l := range slices.Concat(acquire.GetLabels(), open.GetLabels()) {
			texts = append(texts, l.GetKey(), l.GetValue())
		}
	case "reason":
		texts = append(texts, force.GetReason())
	case "who":
		texts = append(texts, force.GetWho())
	}
	return texts
}
