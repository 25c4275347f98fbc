package client

import (
	"reflect"
	"testing"
)

// An option is accepted only where it applies: elsewhere it does not compile.
func TestOptionsFitOnlyWhatTheyApplyTo(t *testing.T) {
	lock, detached := reflect.TypeFor[LockOption](), reflect.TypeFor[DetachedOption]()
	for _, o := range []struct {
		name           string
		maker          any
		lock, detached bool
	}{
		{"Wait", Wait, true, true},
		{"Value", Value, true, true},
		{"DelayAfterLoss", DelayAfterLoss, true, true},
		{"TTL", TTL, true, false},
		{"RequestID", RequestID, false, true},
	} {
		made := reflect.TypeOf(o.maker).Out(0)
		if made.Implements(lock) != o.lock || made.Implements(detached) != o.detached {
			t.Errorf("%s returns %v: of Lock %v, want %v; of Detached.Acquire %v, want %v", o.name, made,
				made.Implements(lock), o.lock, made.Implements(detached), o.detached)
		}
	}
}
