package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

var errDamaged = errors.New("content is damaged")

// Restore makes a table from a snapshot that any version up to this one wrote,
// and reads r to its end. It returns an error if anything about the snapshot is
// not as a table would have written it, down to every invariant of the state;
// it never panics, and makes no more memory than a multiple of what it reads.
func Restore(r io.Reader) (*Table, error) {
	t, err := restoreTable(r)
	if err == nil {
		err = t.check()
	}
	if err != nil {
		return nil, fmt.Errorf("restore snapshot: %w", err)
	}
	return t, nil
}

func restoreTable(r io.Reader) (*Table, error) {
	b, err := openBlocks(r)
	if err != nil {
		return nil, err
	}
	t := New()
	t.level, t.version = b.uint32(), b.string()
	if err := t.KnownLevel(); err != nil && !b.bad {
		return nil, err
	}
	counts := t.readHead(b)
	var names lockOrder
	for _, section := range [...]struct {
		what  string
		count uint64
		read  func(*blockReader) error
	}{
		{"session", counts.sessions, t.readSession},
		{"request", counts.requests, t.readRequest},
		{"lock", counts.locks, func(b *blockReader) error { return t.readLock(b, &names) }},
		{"once ID", counts.records, t.readRecord},
		{"ended session", counts.ended, t.readEnded},
		{"access token", counts.accessTokens, t.readAccessToken},
		{"policy", counts.policies, t.readPolicy},
	} {
		for i := range section.count {
			if err := b.next(); err != nil {
				return nil, fmt.Errorf("%s %d of %d: %w", section.what, i, section.count, err)
			}
			if err := section.read(b); err != nil {
				return nil, fmt.Errorf("%s %d of %d: %w", section.what, i, section.count, err)
			}
		}
	}
	if err := b.finish(); err != nil {
		return nil, err
	}
	for _, l := range t.locks.all() {
		if l.hasFacts() {
			counts.locks--
		}
	}
	if counts.locks != 0 {
		return nil, fmt.Errorf("locks with facts of their own: %w", errDamaged)
	}
	t.registerWaiters()
	return t, nil
}

// blockReader reads records out of checked blocks.
type blockReader struct {
	decoder
	r     io.Reader
	sum   uint32
	block []byte
	full  bool // the block was at least blockSize long: another follows
}

func openBlocks(r io.Reader) (*blockReader, error) {
	var start [len(snapshotMagic) + 1]byte
	if _, err := io.ReadFull(r, start[:]); err != nil {
		return nil, fmt.Errorf("read start: %w", err)
	}
	if string(start[:len(snapshotMagic)]) != snapshotMagic {
		return nil, errors.New("not a snapshot of a lock table")
	}
	if v := start[len(snapshotMagic)]; v != snapshotVersion {
		return nil, fmt.Errorf("its format is version %d, and this version of Locknode knows %d: was it written by a later one?", v, snapshotVersion)
	}
	b := &blockReader{r: r, sum: crc32.Checksum(start[:], castagnoli)}
	return b, b.read()
}

// read reads a block. A length that lies costs no more memory than the bytes
// that are there.
func (b *blockReader) read() error {
	var head [blockHead]byte
	if _, err := io.ReadFull(b.r, head[:]); err != nil {
		return fmt.Errorf("read block: %w", noEOF(err))
	}
	size := int64(binary.BigEndian.Uint32(head[:]))
	if size > maxBlock {
		return fmt.Errorf("read block: length %d, at most %d", size, maxBlock)
	}
	var err error
	if b.block, err = readUpTo(b.r, b.block[:0], int(size)); err != nil {
		return fmt.Errorf("read block: %w", noEOF(err))
	}
	b.sum = crc32.Update(b.sum, castagnoli, b.block)
	if sum := binary.BigEndian.Uint32(head[4:]); sum != b.sum {
		return fmt.Errorf("read block: checksum %08x, want %08x", b.sum, sum)
	}
	b.buf, b.full = b.block, size >= blockSize
	return nil
}

// readUpTo appends size bytes of r to buf, which grows as they come.
func readUpTo(r io.Reader, buf []byte, size int) ([]byte, error) {
	for len(buf) < size {
		n := min(size-len(buf), max(blockSize, len(buf)))
		start := len(buf)
		if cap(buf) < start+n {
			buf = append(make([]byte, 0, start+n), buf...)
		}
		buf = buf[:start+n]
		if _, err := io.ReadFull(r, buf[start:]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next makes sure that a record is there. A block ends at the first record's
// end beyond blockSize, and only there.
func (b *blockReader) next() error {
	read := len(b.block) - len(b.buf)
	switch {
	case b.bad:
		return errDamaged
	case len(b.buf) == 0 && b.full:
		return b.read()
	case len(b.buf) == 0 || read >= blockSize:
		return errDamaged
	}
	return nil
}

// finish makes sure that nothing follows.
func (b *blockReader) finish() error {
	if !b.done() || len(b.block) == 0 {
		return errDamaged
	}
	if err := b.read(); err != nil {
		return err
	}
	if len(b.block) != 0 {
		return errDamaged
	}
	var one [1]byte
	switch _, err := io.ReadFull(b.r, one[:]); {
	case err == nil:
		return errors.New("bytes after the end")
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read end: %w", err)
	}
	return nil
}

type counts struct{ sessions, requests, locks, records, ended, accessTokens, policies uint64 }

func (t *Table) readHead(b *blockReader) counts {
	t.now = b.instant()
	t.index = b.uint()
	t.digest = b.uint()
	t.lastToken = b.uint()
	t.lastNumber = b.uint()
	t.cluster = b.id()
	t.key = b.id()
	t.limits = t.readLimits(b)
	c := counts{sessions: b.uint(), requests: b.uint(), locks: b.uint(), records: b.uint(), ended: b.uint()}
	if t.level >= levelOfRights {
		t.rightsIndex = b.uint()
		c.accessTokens, c.policies = b.uint(), b.uint()
	}
	return c
}

func (t *Table) readSession(b *blockReader) error {
	id := SessionID(b.id())
	s := &session{
		gen: t.sessions.gen, number: b.uint(), ttl: b.int(), deadline: b.instant(), owner: t.owner(b.string()),
		holder: b.string(), labels: b.labels(),
		acked: b.acked(), revoked: b.uint(),
	}
	if n := b.length(4); n > 0 {
		s.revocations = make([]Revocation, n)
		for i := range s.revocations {
			s.revocations[i] = Revocation{Number: b.uint(), Token: b.uint(), Reason: b.string(), Who: b.string()}
		}
	}
	answers := b.uint()
	if b.bad || !t.sessions.isNext(id) {
		return errDamaged
	}
	for range answers {
		if err := b.next(); err != nil {
			return err
		}
		a := b.answer()
		if n := len(s.window); b.bad || n > 0 && s.window[n-1].sequence >= a.sequence {
			return errDamaged
		}
		s.shown += a.cost()
		s.window = append(s.window, a)
	}
	s.owner.use.Sessions++
	s.timer = t.deadlines.add(s.deadline, s.number, &target{session: id})
	s.told, s.peak = s.costOfRevocations(), len(s.window)
	t.recharge(s)
	t.sessions.put(id, s)
	return nil
}

func (b *blockReader) acked() sequences {
	q := sequences{upTo: b.uint()}
	if n := b.length(2); n > 0 {
		q.above = make([]Span, n)
		for i := range q.above {
			q.above[i] = Span{b.uint(), b.uint()}
		}
	}
	return q
}

func (b *blockReader) answer() answer {
	a := answer{
		sequence: b.uint(), kind: Kind(b.byte()), code: Code(b.byte()), asked: b.uint(),
		token: b.uint(), deadline: b.instant(), queued: b.instant(), granted: b.instant(),
	}
	parts := b.byte()
	if parts == 0 {
		return a
	}
	a.more = &answerMore{}
	if parts&answerRefused != 0 {
		a.more.refusal = refusal{why: reason(b.byte()), arg: b.int(), own: b.int(), free: b.int()}
	}
	if parts&answerHolders != 0 {
		a.more.holders = make([]Holder, b.length(24))
		for i := range a.more.holders {
			a.more.holders[i] = b.holder()
		}
	}
	if parts > answerRefused|answerHolders || !a.more.sound(parts) {
		b.bad = true
	}
	return a
}

// sound says that the parts are there, and can be explained.
func (m *answerMore) sound(parts byte) bool {
	if (parts&answerHolders != 0) != (len(m.holders) > 0) || len(m.holders) > MaxHoldersShown {
		return false
	}
	f := m.refusal
	if (parts&answerRefused != 0) != (f.why != noReason) || f.why >= reasonsEnd {
		return false
	}
	return f.why != badLimits || f.arg >= 0 && f.arg < int64(len(limitTable))
}

func (b *blockReader) holder() Holder {
	return Holder{
		Lock: b.string(), Token: b.uint(), Holder: b.string(), Session: b.id(), Mode: Mode(b.byte()), Permits: b.uint32(),
		Deadline: b.instant(), Since: b.int(), Value: b.bytes(), Labels: b.labels(),
	}
}

// readRequest reads a request and puts it on its locks and into its session.
func (t *Table) readRequest(b *blockReader) error {
	r := &request{gen: t.requests.gen, number: b.uint()}
	parts := b.byte()
	if parts&requestInSession != 0 {
		r.session, r.sequence = b.id(), b.uint()
		s, ok := t.sessions.get(r.session)
		if !ok {
			return errDamaged
		}
		r.owner = s.owner
	} else {
		r.owner = t.owner(b.string())
	}
	r.wants, r.ttl, r.deadline, r.queued = b.wants(), b.int(), b.instant(), b.instant()
	if parts&requestHeld != 0 {
		r.token, r.granted, r.since = b.uint(), b.instant(), b.int()
	}
	if parts&requestExtra != 0 {
		e := extra{value: b.bytes(), labels: b.labels(), delay: b.int()}
		if parts&requestInSession == 0 {
			e.holder, e.once, e.unconfirmed, e.shared, e.tries = b.string(), b.id(), b.bool(), b.bool(), b.tries()
		}
		r.extra = e.orNil()
	}
	held := parts&requestHeld != 0
	switch {
	case b.bad || parts > requestInSession|requestHeld|requestExtra,
		!t.requests.isNext(r.number) || len(r.wants) == 0,
		(parts&requestInSession != 0) != (r.session != SessionID{}),
		(parts&requestExtra != 0) != (r.extra != nil),
		held && (r.token == 0 || r.token > t.lastToken):
		return errDamaged
	}
	if _, taken := t.tokens.get(r.token); held && taken {
		return errDamaged
	}
	if r.deadline != 0 {
		r.timer = t.deadlines.add(r.deadline, r.number, nil)
	}
	t.requests.put(r.number, r)
	t.rechargeRequest(r)
	return t.place(r)
}

func (b *blockReader) tries() []try {
	n := b.length(17)
	if n == 0 {
		return nil
	}
	tries := make([]try, n)
	for i := range tries {
		tries[i] = try{b.id(), b.uint()}
	}
	return tries
}

// place derives what follows from a request.
func (t *Table) place(r *request) error {
	for i := range r.wants {
		w := &r.wants[i]
		l, _ := t.locks.get(w.Lock)
		l = t.useLock(w, l)
		if l.holders.has(r.number) || l.queue.has(r.number) {
			return errDamaged // named twice
		}
		if r.token == 0 {
			t.queueAt(r, w, l)
			continue
		}
		l.holders.put(r.number, none{})
		l.used += uint64(w.Permits)
		l.heldAlone = l.heldAlone || w.Mode == Exclusive
	}
	if r.token != 0 {
		t.countGrant(r, 1)
		t.tokens.put(r.token, r.number)
	} else {
		t.countWaiter(r, 1)
	}
	return t.placeInSessions(r)
}

func (t *Table) placeInSessions(r *request) error {
	if r.token != 0 && r.more().unconfirmed {
		for _, y := range r.extra.tries {
			s, ok := t.sessions.get(y.session)
			if !ok {
				return errDamaged
			}
			s.unconfirmed.add(r.number)
		}
		return nil
	}
	if r.token != 0 {
		if r.session == (SessionID{}) {
			return nil
		}
		s, ok := t.sessions.get(r.session)
		if !ok {
			return errDamaged
		}
		s.grants.put(r.number, r.sequence)
		return nil
	}
	for i := range r.tries() {
		s, ok := t.sessions.get(r.try(i).session)
		if !ok {
			return errDamaged
		}
		s.waits.add(r.number)
		if k, ok := s.find(r.try(i).sequence); ok {
			s.window[k].request = r.number
		}
	}
	return nil
}

// lockOrder is the last name that was read.
type lockOrder struct {
	last string
	any  bool
}

func (t *Table) readLock(b *blockReader, order *lockOrder) error {
	name := b.string()
	limit, until, number := b.uint32(), b.instant(), b.uint()
	owner := ""
	if until != 0 {
		owner = b.string()
	}
	if b.bad || order.any && name <= order.last || limit == 0 && until == 0 || (until == 0) != (number == 0) {
		return errDamaged
	}
	*order = lockOrder{name, true}
	l, used := t.locks.get(name)
	if (used && l.limit != 0) != (limit != 0) {
		return errDamaged
	}
	if !used {
		l = &lock{gen: t.locks.gen}
		t.locks.put(name, l)
	}
	l.limit, l.delayUntil, l.delayNumber = limit, until, number
	if until != 0 {
		l.timer = t.deadlines.add(until, number, &target{lock: name})
		t.ownDelay(name, l, t.owner(owner))
	}
	return nil
}

func (t *Table) readRecord(b *blockReader) error {
	id := OnceID(b.id())
	m := &record{
		gen: t.records.gen, owner: t.owner(b.string()), number: b.uint(), token: b.uint(), forget: b.instant(),
		asked: asked{locks: b.uint(), value: b.uint(), ttl: b.int(), delay: b.int()},
	}
	if b.bad || !t.records.isNext(id) {
		return errDamaged
	}
	t.records.put(id, m)
	m.owner.use.Once++
	t.charge(m.owner, costRecord)
	if m.forget != 0 {
		t.forgets.put(forgetKey{m.forget, m.number}, id)
	}
	return nil
}

func (t *Table) readEnded(b *blockReader) error {
	id := SessionID(b.id())
	e := endedSession{forgetKey{b.instant(), b.uint()}, t.owner(b.string())}
	if b.bad || !t.ended.isNext(id) {
		return errDamaged
	}
	e.owner.use.Ended++
	t.charge(e.owner, costEnded)
	t.ended.put(id, e)
	t.endings.put(e.key, id)
	return nil
}

// readLimits fills in the defaults of those that a table of the level does not have.
func (t *Table) readLimits(b *blockReader) Limits {
	many := limitsOf(t.level)
	l := b.limits(many)
	for i := many; i < len(limitTable); i++ {
		limitTable[i].set(&l, limitTable[i].def)
	}
	return l
}

func (t *Table) readAccessToken(b *blockReader) error {
	a := &accessToken{
		AccessToken: AccessToken{
			Accessor: b.string(), Hash: b.hash(), Name: b.string(), Labels: b.labels(), MadeBy: b.string(), MadeAt: b.int(), Deadline: b.instant(),
		},
		number: b.uint(),
	}
	if _, taken := t.hashes.get(a.Hash); b.bad || taken || !t.accessTokens.isNext(a.Accessor) {
		return errDamaged
	}
	t.enterAccessToken(a)
	return nil
}

func (t *Table) readPolicy(b *blockReader) error {
	p := b.policy()
	if b.bad || !t.policies.isNext(p.Name) {
		return errDamaged
	}
	t.enterPolicy(&p)
	return nil
}
