package fsm

import "fmt"

// The payloads of the commands. What encode writes, decode reads.

// A request ID begins with the parts that it has.
const (
	idInSession = 1
	idOnce      = 2
	idSpan      = 4 // and twice that for the second span
	idParts     = idInSession | idOnce | idSpan | idSpan<<1
)

func (e *encoder) requestID(id *RequestID) {
	var parts byte
	if id.Session != (SessionID{}) || id.Sequence != 0 || id.Acked != 0 {
		parts |= idInSession
	}
	if id.Once != (OnceID{}) {
		parts |= idOnce
	}
	for i, s := range id.Answered {
		if s != (Span{}) {
			parts |= idSpan << i
		}
	}
	e.byte(parts)
	if parts&idInSession != 0 {
		e.id(id.Session)
		e.uint(id.Sequence)
		e.uint(id.Acked)
	}
	if parts&idOnce != 0 {
		e.id(id.Once)
	}
	for i, s := range id.Answered {
		if parts&(idSpan<<i) != 0 {
			e.uint(s.First)
			e.uint(s.Last)
		}
	}
}

// requestID reads the ID of a command, and notes what follows it.
func (d *decoder) requestID() (id RequestID) {
	parts := d.byte()
	if parts > idParts {
		d.bad = true
	}
	if parts&idInSession != 0 {
		id.Session, id.Sequence, id.Acked = d.id(), d.uint(), d.uint()
	}
	if parts&idOnce != 0 {
		id.Once = d.id()
	}
	for i := range id.Answered {
		if parts&(idSpan<<i) != 0 {
			id.Answered[i] = Span{d.uint(), d.uint()}
			d.bad = d.bad || id.Answered[i] == Span{}
		}
	}
	d.body = d.buf
	return id
}

func (c OpenSession) encode(e *encoder) {
	e.id(c.Session)
	e.int(c.TTL)
	e.string(c.Holder)
	e.labels(c.Labels)
	e.string(c.Owner)
}

func (c *OpenSession) decode(d *decoder) {
	*c = OpenSession{Session: d.id(), TTL: d.int(), Holder: d.string(), Labels: d.labels(), Owner: d.string()}
}

func (c KeepAlive) encode(e *encoder) {
	e.uint(uint64(len(c.Sessions)))
	for _, s := range c.Sessions {
		e.id(s.Session)
		e.uint(s.RevocationsSeen)
	}
}

func (c *KeepAlive) decode(d *decoder) {
	n := d.length(17)
	if n == 0 {
		return
	}
	c.Sessions = make([]KeepAliveSession, n)
	for i := range c.Sessions {
		c.Sessions[i] = KeepAliveSession{Session: d.id(), RevocationsSeen: d.uint()}
	}
}

func (c EndSession) encode(e *encoder) {
	e.id(c.Session)
	e.uint(uint64(len(c.Undelivered)))
	for _, sequence := range c.Undelivered {
		e.uint(sequence)
	}
}

func (c *EndSession) decode(d *decoder) {
	c.Session = d.id()
	n := d.length(1)
	if n == 0 {
		return
	}
	c.Undelivered = make([]uint64, n)
	for i := range c.Undelivered {
		c.Undelivered[i] = d.uint()
	}
}

func (c KillSession) encode(e *encoder) {
	e.id(c.Session)
	e.string(c.Reason)
	e.string(c.Who)
}

func (c *KillSession) decode(d *decoder) {
	*c = KillSession{Session: d.id(), Reason: d.string(), Who: d.string()}
}

// What stands before the request ID of an acquire may differ between copies.
func (c Acquire) encode(e *encoder) {
	e.string(c.Owner)
	e.requestID(&c.ID)
	e.wants(c.Wants)
	e.int(c.TTL)
	e.int(c.Wait)
	e.string(c.Holder)
	e.bytes(c.Value)
	e.labels(c.Labels)
	e.int(c.Delay)
	e.bool(c.Detached)
}

func (c *Acquire) decode(d *decoder) {
	*c = Acquire{
		Owner: d.string(), ID: d.requestID(), Wants: d.wants(), TTL: d.int(), Wait: d.int(), Holder: d.string(), Value: d.bytes(),
		Labels: d.labels(), Delay: d.int(), Detached: d.bool(),
	}
}

func (c Cancel) encode(e *encoder) {
	e.requestID(&c.ID)
	e.id(c.Target.Session)
	e.uint(c.Target.Sequence)
}

func (c *Cancel) decode(d *decoder) {
	*c = Cancel{ID: d.requestID(), Target: RequestID{Session: d.id(), Sequence: d.uint()}}
}

func (c Release) encode(e *encoder) {
	e.requestID(&c.ID)
	e.string(c.Lock)
	e.uint(c.Token)
	e.bool(c.Lost)
}

func (c *Release) decode(d *decoder) {
	*c = Release{ID: d.requestID(), Lock: d.string(), Token: d.uint(), Lost: d.bool()}
}

func (c Renew) encode(e *encoder) {
	e.requestID(&c.ID)
	e.string(c.Lock)
	e.uint(c.Token)
	e.int(c.TTL)
}

func (c *Renew) decode(d *decoder) {
	*c = Renew{ID: d.requestID(), Lock: d.string(), Token: d.uint(), TTL: d.int()}
}

func (c SetValue) encode(e *encoder) {
	e.requestID(&c.ID)
	e.string(c.Lock)
	e.uint(c.Token)
	e.bytes(c.Value)
}

func (c *SetValue) decode(d *decoder) {
	*c = SetValue{ID: d.requestID(), Lock: d.string(), Token: d.uint(), Value: d.bytes()}
}

// What stands before the request ID may differ between copies.
func (c ForceRelease) encode(e *encoder) {
	e.string(c.Who)
	e.requestID(&c.ID)
	e.string(c.Lock)
	e.uint(c.Token)
	e.string(c.Reason)
}

func (c *ForceRelease) decode(d *decoder) {
	*c = ForceRelease{Who: d.string(), ID: d.requestID(), Lock: d.string(), Token: d.uint(), Reason: d.string()}
}

func (c Resize) encode(e *encoder) {
	e.requestID(&c.ID)
	e.string(c.Lock)
	e.uint(uint64(c.Limit))
}

func (c *Resize) decode(d *decoder) {
	*c = Resize{ID: d.requestID(), Lock: d.string(), Limit: d.uint32()}
}

func (c Configure) encode(e *encoder) { e.limits(c.Limits, limitsOf(c.kind().level())) }

func (e *encoder) limits(l Limits, many int) {
	for i := range limitTable[:many] {
		e.int(limitTable[i].get(&l))
	}
}

func (c *Configure) decode(d *decoder) { c.Limits = d.limits(limitsOf(1)) }

// configureRights is a [Configure] of [KindConfigureRights], to be decoded.
type configureRights struct{ Configure }

func (c *configureRights) decode(d *decoder) {
	c.Limits = d.limits(len(limitTable))
	d.bad = d.bad || c.kind() != KindConfigureRights // there is one way to write a command
}

// limits reads the first limits; the others are their defaults.
func (d *decoder) limits(many int) (l Limits) {
	for i := range limitTable[:many] {
		limitTable[i].set(&l, d.int())
	}
	return l
}

func (c Found) encode(e *encoder) {
	e.id(c.Cluster)
	e.id(c.Key)
}

func (c *Found) decode(d *decoder) { *c = Found{Cluster: d.id(), Key: d.id()} }

func (c Clear) encode(e *encoder) {
	e.string(c.Lock)
	e.string(c.Owner)
	e.uint(c.After)
	e.uint(c.UpTo)
	e.string(c.Reason)
	e.string(c.Who)
}

func (c *Clear) decode(d *decoder) {
	*c = Clear{Lock: d.string(), Owner: d.string(), After: d.uint(), UpTo: d.uint(), Reason: d.string(), Who: d.string()}
}

// decodeCommand decodes a command for tools and tests; see Table.run.
func decodeCommand(frame []byte) (Command, error) {
	d := decoder{buf: frame}
	kind := Kind(d.byte())
	c := decodeKind(&d, kind)
	switch {
	case c == nil && !d.bad:
		return nil, fmt.Errorf("unknown kind %d", kind)
	case !d.done():
		return nil, fmt.Errorf("malformed payload of kind %d", kind)
	}
	return c, nil
}

func decodeKind(d *decoder, kind Kind) Command {
	switch kind {
	case KindOpenSession:
		return decoded[OpenSession](d)
	case KindKeepAlive:
		return decoded[KeepAlive](d)
	case KindEndSession:
		return decoded[EndSession](d)
	case KindKillSession:
		return decoded[KillSession](d)
	case KindAcquire:
		return decoded[Acquire](d)
	case KindCancel:
		return decoded[Cancel](d)
	case KindRelease:
		return decoded[Release](d)
	case KindRenew:
		return decoded[Renew](d)
	case KindSetValue:
		return decoded[SetValue](d)
	case KindForceRelease:
		return decoded[ForceRelease](d)
	case KindResize:
		return decoded[Resize](d)
	case KindConfigure:
		return decoded[Configure](d)
	case KindFound:
		return decoded[Found](d)
	case KindClear:
		return decoded[Clear](d)
	case KindRaiseLevel:
		return decoded[RaiseLevel](d)
	case KindPutAccessToken:
		return decoded[PutAccessToken](d)
	case KindRevokeAccessToken:
		return decoded[RevokeAccessToken](d)
	case KindChangePolicies:
		return decoded[ChangePolicies](d)
	case KindAs:
		return decoded[As](d)
	case KindConfigureRights:
		var c configureRights
		c.decode(d)
		return c.Configure
	}
	return nil
}

func decoded[C Command, P interface {
	*C
	decode(*decoder)
}](d *decoder) Command {
	var c C
	P(&c).decode(d)
	return c
}
