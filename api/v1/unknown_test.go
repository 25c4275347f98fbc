package apiv1

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// fillUnknown gives m, and every message in it, a field that nobody knows, and
// returns how long these are together.
func fillUnknown(m protoreflect.Message) (bytes int) {
	unknown := protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, 10))
	m.SetUnknown(unknown)
	bytes = len(unknown)
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		switch {
		case f.Kind() != protoreflect.MessageKind:
		case f.IsList():
			bytes += fillUnknown(m.Mutable(f).List().AppendMutable().Message())
		default:
			bytes += fillUnknown(m.Mutable(f).Message())
		}
	}
	return bytes
}

func TestUnknownBytesOfEveryMessageCount(t *testing.T) {
	requests := (&Operation{}).ProtoReflect().Descriptor().Oneofs().ByName("request").Fields()
	for i := range requests.Len() {
		op := &Operation{}
		f := requests.Get(i)
		want := fillUnknown(op.ProtoReflect().Mutable(f).Message())
		if got := op.UnknownBytes(); got != want {
			t.Errorf("%s: %d unknown bytes, want %d", f.Name(), got, want)
		}
	}
	for _, op := range []*Operation{nil, {}, {Request: &Operation_Acquire{}}, {Request: &Operation_Cancel{}}, {Request: &Operation_KeepAlive{}}} {
		if got := op.UnknownBytes(); got != 0 {
			t.Errorf("%v: %d unknown bytes, want none", op, got)
		}
	}
}
