package apiv1

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Kind is a kind of operation: which request an [Operation] has.
type Kind uint8

// The kinds, in the order of locknode.proto. The numbers are used in this program only, and
// not on disk or wire.
const (
	KindPing Kind = iota // no request: the answer shows that the node is there
	KindOpenSession
	KindKeepAlive
	KindEndSession
	KindAcquire
	KindCancel
	KindRelease
	KindRenew
	KindSetValue
	KindForceRelease
	KindResize
	KindGet
	KindList
	kindCount
)

// kind has the properties of a kind of operation.
type kind struct {
	name   string // of the fields of Operation and Answer, in logs and metrics
	method string // of the service Locks

	frees  bool // it releases something or keeps it alive: never refused because of other operations
	hosted bool // without a session a node sends it in one of its own
	stores bool // the table, or a queue, keeps texts or a value of it
	pages  bool // the answer is a page of many locks

	measure func(*Operation) measure                // how long it is, and whether it can be sent
	id      func(*Operation) *RequestID             // nil: it has none
	under   func(*Operation, *RequestID) *Operation // the same under another request ID; nil: it has none
	watches func(*Operation) []byte                 // the session whose notices its sender gets; nil: none
	grant   func(*Operation) (string, uint64)       // the lock and the token that it shows; nil: it shows none
	stale   func(*Operation) int64                  // how old the answer to a read may be; nil: it changes something

	fits    func(*Answer) bool // an answer is one to it
	shorten func(*Answer, int) // its answer may be too long; nil: it is short
	long    bool               // its answer has names, values or holders
}

// kinds is the one table of the kinds of operation. Package node has the command of the lock
// table for each.
var kinds = [kindCount]kind{
	KindPing: {name: "ping"},
	KindOpenSession: {
		name: "open_session", method: "OpenSession", stores: true,
		measure: func(x *Operation) measure { return x.GetOpenSession().measure() },
		watches: func(x *Operation) []byte { return x.GetOpenSession().GetSession() },
		fits:    func(a *Answer) bool { return a.GetOpenSession() != nil },
	},
	KindKeepAlive: {
		name: "keep_alive", method: "KeepAlive", frees: true, long: true,
		measure: func(x *Operation) measure { return x.GetKeepAlive().measure() },
		watches: func(x *Operation) []byte { return x.GetKeepAlive().GetSession() },
		fits:    func(a *Answer) bool { return a.GetKeepAlive() != nil },
	},
	KindEndSession: {
		name: "end_session", method: "EndSession", frees: true,
		measure: func(x *Operation) measure { return x.GetEndSession().measure() },
		fits:    func(a *Answer) bool { return a.GetEndSession() != nil },
	},
	KindAcquire: {
		name: "acquire", method: "Acquire", hosted: true, stores: true,
		measure: func(x *Operation) measure { return x.GetAcquire().measure() },
		id:      func(x *Operation) *RequestID { return x.GetAcquire().GetId() },
		under: func(x *Operation, id *RequestID) *Operation {
			r := x.GetAcquire()
			return &Operation{Request: &Operation_Acquire{Acquire: &AcquireRequest{
				Id: id, Locks: r.GetLocks(), TtlNs: r.GetTtlNs(), WaitNs: r.GetWaitNs(), Holder: r.GetHolder(),
				Value: r.GetValue(), Labels: r.GetLabels(), DelayNs: r.GetDelayNs(), Detached: r.GetDetached(),
			}}}
		},
		fits: func(a *Answer) bool { return a.GetAcquire().GetToken() != 0 },
	},
	KindCancel: { // it names a request in a session, and has the same effect however often it is sent
		name: "cancel", method: "Cancel", frees: true,
		measure: func(x *Operation) measure { return x.GetCancel().measure() },
		id:      func(x *Operation) *RequestID { return x.GetCancel().GetId() },
		under: func(x *Operation, id *RequestID) *Operation {
			return &Operation{Request: &Operation_Cancel{Cancel: &CancelRequest{Id: id, Target: x.GetCancel().GetTarget()}}}
		},
		fits: func(a *Answer) bool { return a.GetCancel() != nil },
	},
	KindRelease: {
		name: "release", method: "Release", frees: true, hosted: true,
		measure: func(x *Operation) measure { return x.GetRelease().measure() },
		id:      func(x *Operation) *RequestID { return x.GetRelease().GetId() },
		under: func(x *Operation, id *RequestID) *Operation {
			r := x.GetRelease()
			return &Operation{Request: &Operation_Release{Release: &ReleaseRequest{Id: id, Name: r.GetName(), Token: r.GetToken(), Lost: r.GetLost()}}}
		},
		grant: func(x *Operation) (string, uint64) { return x.GetRelease().GetName(), x.GetRelease().GetToken() },
		fits:  func(a *Answer) bool { return a.GetRelease() != nil },
	},
	KindRenew: {
		name: "renew", method: "Renew", frees: true, hosted: true,
		measure: func(x *Operation) measure { return x.GetRenew().measure() },
		id:      func(x *Operation) *RequestID { return x.GetRenew().GetId() },
		under: func(x *Operation, id *RequestID) *Operation {
			r := x.GetRenew()
			return &Operation{Request: &Operation_Renew{Renew: &RenewRequest{Id: id, Name: r.GetName(), Token: r.GetToken(), TtlNs: r.GetTtlNs()}}}
		},
		grant: func(x *Operation) (string, uint64) { return x.GetRenew().GetName(), x.GetRenew().GetToken() },
		fits:  func(a *Answer) bool { return a.GetRenew() != nil },
	},
	KindSetValue: {
		name: "set_value", method: "SetValue", hosted: true, stores: true,
		measure: func(x *Operation) measure { return x.GetSetValue().measure() },
		id:      func(x *Operation) *RequestID { return x.GetSetValue().GetId() },
		under: func(x *Operation, id *RequestID) *Operation {
			r := x.GetSetValue()
			return &Operation{Request: &Operation_SetValue{SetValue: &SetValueRequest{Id: id, Name: r.GetName(), Token: r.GetToken(), Value: r.GetValue()}}}
		},
		grant: func(x *Operation) (string, uint64) { return x.GetSetValue().GetName(), x.GetSetValue().GetToken() },
		fits:  func(a *Answer) bool { return a.GetSetValue() != nil },
	},
	KindForceRelease: {
		name: "force_release", method: "ForceRelease", frees: true, hosted: true, long: true,
		measure: func(x *Operation) measure { return x.GetForceRelease().measure() },
		id:      func(x *Operation) *RequestID { return x.GetForceRelease().GetId() },
		under: func(x *Operation, id *RequestID) *Operation {
			r := x.GetForceRelease()
			return &Operation{Request: &Operation_ForceRelease{ForceRelease: &ForceReleaseRequest{
				Id: id, Name: r.GetName(), Token: r.GetToken(), Reason: r.GetReason(), Who: r.GetWho(),
			}}}
		},
		fits:    func(a *Answer) bool { return a.GetForceRelease() != nil },
		shorten: func(a *Answer, most int) { a.GetForceRelease().shorten(most) },
	},
	KindResize: {
		name: "resize", method: "Resize", hosted: true,
		measure: func(x *Operation) measure { return x.GetResize().measure() },
		id:      func(x *Operation) *RequestID { return x.GetResize().GetId() },
		under: func(x *Operation, id *RequestID) *Operation {
			r := x.GetResize()
			return &Operation{Request: &Operation_Resize{Resize: &ResizeRequest{Id: id, Name: r.GetName(), Limit: r.GetLimit()}}}
		},
		fits: func(a *Answer) bool { return a.GetResize() != nil },
	},
	KindGet: {
		name: "get", method: "Get", long: true,
		measure: func(x *Operation) measure { return x.GetGet().measure() },
		stale:   func(x *Operation) int64 { return x.GetGet().GetMaxStaleNs() },
		fits:    func(a *Answer) bool { return a.GetGet() != nil },
		shorten: func(a *Answer, most int) { a.GetGet().GetLock().shorten(most) },
	},
	KindList: {
		name: "list", method: "List", long: true, pages: true,
		measure: func(x *Operation) measure { return x.GetList().measure() },
		stale:   func(x *Operation) int64 { return x.GetList().GetMaxStaleNs() },
		fits:    func(a *Answer) bool { return a.GetList() != nil },
		shorten: func(a *Answer, most int) { a.GetList().shorten(most) },
	},
}

// kindOfMethod is the table by method.
var kindOfMethod = func() map[string]Kind {
	m := make(map[string]Kind, kindCount)
	for k := range kindCount {
		m[kinds[k].method] = k
	}
	return m
}()

// KindOfMethod returns the kind of operation that a method of the service Locks takes,
// [KindPing] for a method that takes none.
func KindOfMethod(name string) Kind { return kindOfMethod[name] }

// Kind returns the kind of x, [KindPing] for a request that this version does not know.
func (x *Operation) Kind() Kind {
	switch x.GetRequest().(type) {
	case *Operation_OpenSession:
		return KindOpenSession
	case *Operation_KeepAlive:
		return KindKeepAlive
	case *Operation_EndSession:
		return KindEndSession
	case *Operation_Acquire:
		return KindAcquire
	case *Operation_Cancel:
		return KindCancel
	case *Operation_Release:
		return KindRelease
	case *Operation_Renew:
		return KindRenew
	case *Operation_SetValue:
		return KindSetValue
	case *Operation_ForceRelease:
		return KindForceRelease
	case *Operation_Resize:
		return KindResize
	case *Operation_Get:
		return KindGet
	case *Operation_List:
		return KindList
	}
	return KindPing
}

// New returns an operation of the kind, and the request in it, which is empty. The kind must not
// be [KindPing].
func (k Kind) New() (op *Operation, request proto.Message) {
	op = &Operation{}
	m := op.ProtoReflect()
	return op, m.Mutable(k.field(m)).Message().Interface()
}

// Result returns the result of an operation of the kind out of its answer, which must fit.
func (k Kind) Result(a *Answer) proto.Message {
	m := a.ProtoReflect()
	return m.Get(k.field(m)).Message().Interface()
}

// field returns the field of the kind in an Operation or Answer.
func (k Kind) field(m protoreflect.Message) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName(protoreflect.Name(kinds[k].name))
}

// String returns the name of the kind, as in locknode.proto.
func (k Kind) String() string { return kinds[k].name }

// Frees reports whether operations of the kind release something or keep it alive: those
// are not refused because of others.
func (k Kind) Frees() bool { return kinds[k].frees }

// Hosted reports whether a node sends an operation of the kind in a session of its own if
// it names none.
func (k Kind) Hosted() bool { return kinds[k].hosted }

// Stores reports whether the table or a queue keeps something of the request that may be long.
func (k Kind) Stores() bool { return kinds[k].stores }

// Reads reports whether operations of the kind change nothing.
func (k Kind) Reads() bool { return kinds[k].stale != nil }

// Pages reports whether the answer is a page of many locks.
func (k Kind) Pages() bool { return kinds[k].pages }

// Long reports whether the answer may be long.
func (k Kind) Long() bool { return kinds[k].long }

// Fits reports whether a is the result of an operation of the kind: not an error, and not
// of another kind.
func (k Kind) Fits(a *Answer) bool { return kinds[k].fits != nil && kinds[k].fits(a) }

// Shorten cuts an answer to an operation of the kind to about most bytes. The next page of a
// list begins where this one was cut; of the holders of a lock, also in an error, the first
// are kept, and at least one.
func (k Kind) Shorten(a *Answer, most int) {
	if e := a.GetError(); e != nil {
		e.Holders = firstHolders(e.GetHolders(), most)
	} else if f := kinds[k].shorten; f != nil {
		f(a, most)
	}
}

// RequestID returns the request ID of x, nil if it has none.
func (x *Operation) RequestID() *RequestID {
	if f := kinds[x.Kind()].id; f != nil {
		return f(x)
	}
	return nil
}

// Under returns a copy of x with another request ID, which shares its texts and values with x.
// It returns x itself if operations of its kind have no request ID.
func (x *Operation) Under(id *RequestID) *Operation {
	if f := kinds[x.Kind()].under; f != nil {
		return f(x, id)
	}
	return x
}

// Watches returns the ID of the session that x opens or keeps alive, nil if there is none: the
// sender of x gets the notices of that session.
func (x *Operation) Watches() []byte {
	if f := kinds[x.Kind()].watches; f != nil {
		return f(x)
	}
	return nil
}

// Grant returns the lock and the token of the grant that x is about; ok is false if
// operations of its kind do not show a token.
func (x *Operation) Grant() (lock string, token uint64, ok bool) {
	if f := kinds[x.Kind()].grant; f != nil {
		lock, token = f(x)
		return lock, token, true
	}
	return "", 0, false
}

// MaxStale returns how old the answer to a read may be, in nanoseconds; 0 if x is no read.
func (x *Operation) MaxStale() int64 {
	if f := kinds[x.Kind()].stale; f != nil {
		return f(x)
	}
	return 0
}
