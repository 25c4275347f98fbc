package node

import (
	"fmt"
	"slices"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// badText returns the text of op that the table refuses in a field because it holds what
// cannot be seen, quoted; "" if there is none. The table remembers reasons, not texts.
func badText(op *apiv1.Operation, field string) string {
	for _, text := range textsOf(op, field) {
		if !fsm.Plain(text) {
			return fmt.Sprintf("%.100q: ", text)
		}
	}
	return ""
}

// textsOf returns what op has in a field whose name is the table's.
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
