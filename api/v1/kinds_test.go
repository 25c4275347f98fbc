package apiv1

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// requests are the fields of Operation that hold a request.
func requests() protoreflect.FieldDescriptors {
	return (&Operation{}).ProtoReflect().Descriptor().Oneofs().ByName("request").Fields()
}

// operationOf returns an operation of the kind of a field of Operation.
func operationOf(f protoreflect.FieldDescriptor) *Operation {
	op := &Operation{}
	op.ProtoReflect().Mutable(f)
	return op
}

// fill gives every field of m, and of the messages in it, a value that is not the zero one.
func fill(m protoreflect.Message) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if f.IsList() {
			if f.Message() == nil {
				m.Mutable(f).List().Append(valueOf(f))
			} else {
				fill(m.Mutable(f).List().AppendMutable().Message())
			}
			continue
		}
		if f.Message() != nil {
			fill(m.Mutable(f).Message())
		} else {
			m.Set(f, valueOf(f))
		}
	}
}

func valueOf(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(string(f.Name()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(f.Name()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(7)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(7)
	default:
		return protoreflect.ValueOfUint64(7)
	}
}

func TestEveryRequestHasARowOfTheTable(t *testing.T) {
	calls := File_locknode_proto.Services().ByName("Locks").Methods()
	var seen []Kind
	for i := range requests().Len() {
		f := requests().Get(i)
		op := operationOf(f)
		k := op.Kind()
		seen = append(seen, k)
		if k == KindPing || k.String() != string(f.Name()) {
			t.Errorf("%s: its kind is %d, called %q", f.Name(), k, k)
		}
		method := calls.ByName(protoreflect.Name(kinds[k].method))
		if method == nil || method.Input() != f.Message() {
			t.Errorf("%s: there is no method %q that takes it", f.Name(), kinds[k].method)
		}
		if got := KindOfMethod(kinds[k].method); got != k {
			t.Errorf("KindOfMethod(%q) = %s", kinds[k].method, got)
		}
		hasID := f.Message().Fields().ByName("id") != nil
		if hasID != (kinds[k].id != nil) || hasID != (kinds[k].under != nil) {
			t.Errorf("%s: its request has an ID: %v; the table has one: %v, and can change it: %v", f.Name(), hasID, kinds[k].id != nil, kinds[k].under != nil)
		}
		if k.Hosted() && !hasID {
			t.Errorf("%s: is sent in a session of the node's, and has no request ID", f.Name())
		}
		reads := f.Message().Fields().ByName("max_stale_ns") != nil
		if reads != k.Reads() {
			t.Errorf("%s: Reads() = %v", f.Name(), k.Reads())
		}
		if got := len(op.Watches()); got != 0 {
			t.Errorf("%s: an empty one watches a session of %d bytes", f.Name(), got)
		}
	}
	slices.Sort(seen)
	if len(slices.Compact(seen)) != int(kindCount)-1 {
		t.Errorf("the table has rows that no request has: kinds of requests are %v", seen)
	}
	if k := (&Operation{}).Kind(); k != KindPing || KindOfMethod("Status") != KindPing {
		t.Errorf("what has no request is of kind %s", k)
	}
}

func TestOnlyTheResultOfAKindFitsIt(t *testing.T) {
	results := (&Answer{}).ProtoReflect().Descriptor().Oneofs().ByName("result").Fields()
	for i := range requests().Len() {
		k := operationOf(requests().Get(i)).Kind()
		if k.Fits(nil) || k.Fits(&Answer{}) {
			t.Errorf("%s: an answer without a result fits", k)
		}
		for j := range results.Len() {
			a := &Answer{}
			fill(a.ProtoReflect().Mutable(results.Get(j)).Message())
			if got, want := k.Fits(a), string(results.Get(j).Name()) == k.String(); got != want {
				t.Errorf("%s: a result %s fits: %v, want %v", k, results.Get(j).Name(), got, want)
			}
		}
	}
	if KindAcquire.Fits(&Answer{Result: &Answer_Acquire{Acquire: &AcquireResponse{}}}) {
		t.Error("a grant without a token fits an acquire")
	}
}

func TestAnotherRequestIDChangesNothingElse(t *testing.T) {
	id := &RequestID{Session: []byte("another"), Sequence: 3}
	for i := range requests().Len() {
		f := requests().Get(i)
		op := operationOf(f)
		fill(op.ProtoReflect().Mutable(f).Message())
		before := proto.Clone(op)
		got := op.Under(id)
		want := proto.Clone(op).(*Operation)
		if field := f.Message().Fields().ByName("id"); field != nil {
			want.ProtoReflect().Mutable(f).Message().Set(field, protoreflect.ValueOfMessage(id.ProtoReflect()))
			if !proto.Equal(got.RequestID(), id) {
				t.Errorf("%s: its request ID is %v", f.Name(), got.RequestID())
			}
		}
		if !proto.Equal(got, want) {
			t.Errorf("%s under another ID is\n%v, want\n%v", f.Name(), got, want)
		}
		if !proto.Equal(op, before) {
			t.Errorf("%s: the operation itself was changed to %v", f.Name(), op)
		}
	}
}

func TestGrantAndSessionAreThoseOfTheRequest(t *testing.T) {
	for i := range requests().Len() {
		f := requests().Get(i)
		op := operationOf(f)
		m := op.ProtoReflect().Mutable(f).Message()
		fill(m)
		if lock, token, ok := op.Grant(); ok && (lock != "name" || token != 7) {
			t.Errorf("%s: Grant() = %q, %d", f.Name(), lock, token)
		}
		if got := op.Watches(); got != nil && string(got) != "session" {
			t.Errorf("%s: Watches() = %q", f.Name(), got)
		}
		if got := op.MaxStale(); op.Kind().Reads() && got != 7 || !op.Kind().Reads() && got != 0 {
			t.Errorf("%s: MaxStale() = %d", f.Name(), got)
		}
	}
}

// fillUnknown gives m, and every message in it, a field of no known number, and
// returns how long these are together.
func fillUnknown(m protoreflect.Message) (bytes int) {
	unknown := protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, 10))
	m.SetUnknown(unknown)
	bytes = len(unknown)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				bytes += fillUnknown(v.List().Get(i).Message())
			}
		default:
			bytes += fillUnknown(v.Message())
		}
		return true
	})
	return bytes
}

func TestAllThatTravelsIsMeasured(t *testing.T) {
	for i := range requests().Len() {
		f := requests().Get(i)
		op := operationOf(f)
		empty, _ := op.Measure()
		m := op.ProtoReflect().Mutable(f).Message()
		fill(m)
		known, _ := op.Measure()
		if most := proto.Size(op); known < most {
			t.Errorf("%s: measured are %d bytes, and %d are sent", f.Name(), known, most)
		}
		if known <= empty {
			t.Errorf("%s: a full one is measured as %d bytes, an empty one as %d", f.Name(), known, empty)
		}
		want := fillUnknown(m)
		if got, _ := op.Measure(); got != known+want {
			t.Errorf("%s: of %d unknown bytes %d are measured", f.Name(), want, got-known)
		}
	}
	for _, op := range []*Operation{nil, {}, {Request: &Operation_Acquire{}}, {Request: &Operation_Cancel{}}, {Request: &Operation_KeepAlive{}}} {
		if got, _ := op.Measure(); got != fixedBytes {
			t.Errorf("%v: %d bytes, want %d", op, got, fixedBytes)
		}
	}
}

func TestTextThatIsNotUnicodeIsNamed(t *testing.T) {
	for i := range requests().Len() {
		f := requests().Get(i)
		texts := f.Message().Fields()
		for j := range texts.Len() {
			if texts.Get(j).Kind() != protoreflect.StringKind {
				continue
			}
			op := operationOf(f)
			op.ProtoReflect().Mutable(f).Message().Set(texts.Get(j), protoreflect.ValueOfString("\xff"))
			if _, bad := op.Measure(); bad != string(texts.Get(j).Name()) {
				t.Errorf("%s.%s is not UTF-8, and named is %q", f.Name(), texts.Get(j).Name(), bad)
			}
		}
	}
}
