package fsm

func (c PutAccessToken) encode(e *encoder) {
	e.string(c.Accessor)
	e.hash(&c.Hash)
	e.string(c.Name)
	e.labels(c.Labels)
	e.string(c.MadeBy)
	e.int(c.MadeAt)
	e.int(c.TTL)
}

func (c *PutAccessToken) decode(d *decoder) {
	*c = PutAccessToken{
		Accessor: d.string(), Hash: d.hash(), Name: d.string(), Labels: d.labels(), MadeBy: d.string(), MadeAt: d.int(), TTL: d.int(),
	}
}

func (e *encoder) hash(h *[32]byte) { e.buf = append(e.buf, h[:]...) }

func (d *decoder) hash() (h [32]byte) {
	copy(h[:], d.take(len(h)))
	return h
}

func (c RevokeAccessToken) encode(e *encoder) { e.string(c.Accessor) }

func (c *RevokeAccessToken) decode(d *decoder) { c.Accessor = d.string() }

func (c ChangePolicies) encode(e *encoder) {
	e.uint(uint64(len(c.Put)))
	for i := range c.Put {
		e.policy(&c.Put[i])
	}
	e.strings(c.Remove)
	e.uint(c.If)
}

func (c *ChangePolicies) decode(d *decoder) {
	if n := d.length(smallestPolicy); n > 0 {
		c.Put = make([]Policy, n)
		for i := range c.Put {
			c.Put[i] = d.policy()
		}
	}
	c.Remove, c.If = d.strings(), d.uint()
}

// smallestPolicy is how many bytes a policy has at least: three lengths and the quota.
const smallestPolicy = 3 + quotaFields

func (e *encoder) policy(p *Policy) {
	e.string(p.Name)
	e.strings(p.For)
	e.uint(uint64(len(p.Rules)))
	for i := range p.Rules {
		r := &p.Rules[i]
		e.bool(r.Deny)
		e.byte(byte(r.Rights))
		e.string(r.Name)
		e.bool(r.Exact)
	}
	for _, f := range p.Quota.fields() {
		e.int(f)
	}
}

func (d *decoder) policy() Policy {
	p := Policy{Name: d.string(), For: d.strings()}
	if n := d.length(4); n > 0 {
		p.Rules = make([]Rule, n)
		for i := range p.Rules {
			p.Rules[i] = Rule{Deny: d.bool(), Rights: Right(d.byte()), Name: d.string(), Exact: d.bool()}
		}
	}
	var fields [quotaFields]int64
	for i := range fields {
		fields[i] = d.int()
	}
	p.Quota = quotaOf(fields)
	return p
}

// quotaFields is how many fields a [Quota] has.
const quotaFields = 8

func (q *Quota) fields() [quotaFields]int64 {
	return [...]int64{
		int64(q.Sessions), int64(q.Grants), int64(q.Waiters), q.Bytes,
		int64(q.OpsPerSecond), int64(q.Connections), int64(q.Streams), q.UnsentBytes,
	}
}

// quotaOf is the quota with these fields. A number that is no int everywhere becomes -1,
// which is out of range, too.
func quotaOf(f [quotaFields]int64) Quota {
	number := func(v int64) int {
		if v != int64(int32(v)) {
			return -1
		}
		return int(v)
	}
	return Quota{
		Sessions: number(f[0]), Grants: number(f[1]), Waiters: number(f[2]), Bytes: f[3],
		OpsPerSecond: number(f[4]), Connections: number(f[5]), Streams: number(f[6]), UnsentBytes: f[7],
	}
}

func (e *encoder) strings(list []string) {
	e.uint(uint64(len(list)))
	for _, s := range list {
		e.string(s)
	}
}

func (d *decoder) strings() []string {
	n := d.length(1)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.string()
	}
	return list
}

func (c As) encode(e *encoder) {
	e.string(c.Caller)
	e.bool(c.Force)
	if c.Command == nil {
		e.byte(0)
		return
	}
	e.byte(byte(c.Command.kind()))
	c.Command.encode(e)
}

func (c *As) decode(d *decoder) {
	*c = As{Caller: d.string(), Force: d.bool()}
	kind := Kind(d.byte())
	if d.bad = d.bad || !kind.isRequest(); d.bad {
		return
	}
	c.Command = decodeKind(d, kind)
}

// isRequest says that an [As] may run a command of the kind: what clients ask for, about
// locks and sessions of their own.
func (k Kind) isRequest() bool {
	switch k {
	case KindOpenSession, KindEndSession, KindAcquire, KindCancel, KindRelease, KindRenew, KindSetValue, KindForceRelease, KindResize:
		return true
	}
	return false
}
