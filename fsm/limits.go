package fsm

import "fmt"

// Limits bound everything that grows. They are part of the replicated state and
// change only by [Configure]. A zero field means its default; the defaults and
// the largest allowed values decide what commands do and so are never changed.
type Limits struct {
	NameBytes        int   // lock name, UTF-8, at least 1 byte; default 512
	ValueBytes       int   // default 4096
	HolderBytes      int   // default 128
	Labels           int   // per session or grant; default 32
	LabelBytes       int   // key and value together; default 256
	LocksPerRequest  int   // default 64
	WaitersPerLock   int   // default 10,000
	Waiters          int   // in all; default 200,000
	GrantsPerSession int   // grants and waiting requests; default 10,000
	RequestsWindow   int   // answers that a session remembers at least; default 10,000
	Sessions         int   // default 100,000
	Grants           int   // grants and waiting requests in all; default 2,000,000
	OnceRemembered   int   // once IDs: a new one beyond is refused; default 250,000
	EndedRemembered  int   // sessions that have ended: while there are as many, none is opened; default 1,000,000
	OnceNanos        int64 // how long both are remembered after their end; default 5 minutes
	MinTTL           int64 // nanoseconds; default 1 s
	MaxTTL           int64 // nanoseconds; default 24 h
	MaxWait          int64 // wait of a detached acquire, nanoseconds; default 1 h
	MaxDelay         int64 // delay after a loss, nanoseconds; default 10 minutes
	ReasonBytes      int   // reason and who, each; default 256
	ExpiriesPerEntry int   // what is due beyond this waits for the next entry; default 1,024
	TableBytes       int64 // memory that the table may take, by a bound of what each record costs; default 256 MiB
	AccessTokens     int   // default 10,000
	Policies         int   // default 1,000
	PolicyBytes      int   // of one policy, as it is in the log; default 16 KiB
}

// maxLocksPerRequest is the largest Limits.LocksPerRequest.
const maxLocksPerRequest = 256

// endsPerEntry bounds the grants and waits that end by time in one entry where
// they end with their sessions, each of which counts once in ExpiriesPerEntry.
// One session is never cut: the entry that reaches the bound finishes it.
const endsPerEntry = 16_384

// limit is one field of Limits as a number.
type limit struct {
	field string
	nanos bool  // a duration
	least int64 // besides 0
	def   int64
	max   int64
	get   func(*Limits) int64
	set   func(*Limits, int64)
}

func size(field string, def, largest int64, at func(*Limits) *int) limit {
	return limit{
		field, false, 1, def, largest,
		func(l *Limits) int64 { return int64(*at(l)) },
		func(l *Limits, v int64) {
			if v != int64(int32(v)) {
				v = -1 // out of range too, and fits an int everywhere
			}
			*at(l) = int(v)
		},
	}
}

func span(field string, def, largest int64, at func(*Limits) *int64) limit {
	return limit{
		field, true, 1, def, largest,
		func(l *Limits) int64 { return *at(l) },
		func(l *Limits, v int64) { *at(l) = v },
	}
}

func memory(field string, def, largest int64, at func(*Limits) *int64) limit {
	l := span(field, def, largest, at)
	l.nanos, l.least = false, minTableSize
	return l
}

const (
	nanosPerSecond = int64(1e9)
	nanosPerDay    = 24 * 3600 * nanosPerSecond
)

// limitTable has every limit, in the order of the encoding: only ever appended
// to. The largest values keep any one record of a snapshot far below maxBlock.
var limitTable = [...]limit{
	size("name_bytes", 512, 4096, func(l *Limits) *int { return &l.NameBytes }),
	size("value_bytes", 4096, 1<<16, func(l *Limits) *int { return &l.ValueBytes }),
	size("holder_bytes", 128, 4096, func(l *Limits) *int { return &l.HolderBytes }),
	size("labels", 32, 256, func(l *Limits) *int { return &l.Labels }),
	size("label_bytes", 256, 4096, func(l *Limits) *int { return &l.LabelBytes }),
	size("locks_per_request", 64, maxLocksPerRequest, func(l *Limits) *int { return &l.LocksPerRequest }),
	size("waiters_per_lock", 10_000, 1_000_000, func(l *Limits) *int { return &l.WaitersPerLock }),
	size("waiters", 200_000, 100_000_000, func(l *Limits) *int { return &l.Waiters }),
	size("grants_per_session", 10_000, 1_000_000, func(l *Limits) *int { return &l.GrantsPerSession }),
	size("requests_window", 10_000, 1_000_000, func(l *Limits) *int { return &l.RequestsWindow }),
	size("sessions", 100_000, 100_000_000, func(l *Limits) *int { return &l.Sessions }),
	size("grants", 2_000_000, 100_000_000, func(l *Limits) *int { return &l.Grants }),
	size("once_remembered", 250_000, 10_000_000, func(l *Limits) *int { return &l.OnceRemembered }),
	span("once_for", 300*nanosPerSecond, 366*nanosPerDay, func(l *Limits) *int64 { return &l.OnceNanos }),
	span("min_ttl", nanosPerSecond, 366*nanosPerDay, func(l *Limits) *int64 { return &l.MinTTL }),
	span("max_ttl", nanosPerDay, 366*nanosPerDay, func(l *Limits) *int64 { return &l.MaxTTL }),
	span("max_wait", 3600*nanosPerSecond, 366*nanosPerDay, func(l *Limits) *int64 { return &l.MaxWait }),
	span("max_delay", 600*nanosPerSecond, 366*nanosPerDay, func(l *Limits) *int64 { return &l.MaxDelay }),
	size("reason_bytes", 256, 4096, func(l *Limits) *int { return &l.ReasonBytes }),
	size("expiries_per_entry", 1024, 100_000, func(l *Limits) *int { return &l.ExpiriesPerEntry }),
	size("ended_remembered", 1_000_000, 100_000_000, func(l *Limits) *int { return &l.EndedRemembered }),
	memory("table_bytes", 256<<20, 1<<50, func(l *Limits) *int64 { return &l.TableBytes }),
	// From here on of level 2.
	size("access_tokens", 10_000, 1_000_000, func(l *Limits) *int { return &l.AccessTokens }),
	size("policies", 1000, 100_000, func(l *Limits) *int { return &l.Policies }),
	size("policy_bytes", 16<<10, 1<<18, func(l *Limits) *int { return &l.PolicyBytes }),
}

// firstLimits is how many of the limits are of level 1.
const firstLimits = 22

// limitsOf is how many limits a table of a level has. The others have their defaults.
func limitsOf(level uint32) int {
	if level < levelOfRights {
		return firstLimits
	}
	return len(limitTable)
}

// from says what is allowed from where.
func (e *limit) from() string {
	if e.least > 1 {
		return fmt.Sprintf("0, or %d", e.least)
	}
	return "0"
}

// effective fills in the defaults. It returns the place in limitTable of the
// first field that is out of range, or -1.
func (l Limits) effective() (Limits, int) {
	for i := range limitTable {
		e := &limitTable[i]
		v := e.get(&l)
		if v < 0 || v > 0 && v < e.least || v > e.max {
			return l, i
		}
		if v == 0 {
			e.set(&l, e.def)
		}
	}
	return l, -1
}

// Validate names the first field that is out of range, and what is allowed.
func (l Limits) Validate() error {
	full, wrong := l.effective()
	switch {
	case wrong < 0 && full.MinTTL > full.MaxTTL:
		return fmt.Errorf("limits.min_ttl %gs is more than limits.max_ttl %gs: no session could be opened", float64(full.MinTTL)/1e9, float64(full.MaxTTL)/1e9)
	case wrong < 0:
		return nil
	}
	e := &limitTable[wrong]
	if e.least > 1 {
		return fmt.Errorf("limits.%s %d: %d to %d is allowed, and 0 for the default, %d", e.field, e.get(&l), e.least, e.max, e.def)
	}
	return fmt.Errorf("limits.%s %d: 0 (the default, %d) to %d is allowed", e.field, e.get(&l), e.def, e.max)
}

// WithDefaults returns l with every zero field replaced by its default.
func (l Limits) WithDefaults() Limits {
	l, _ = l.effective()
	return l
}

// OfLevel returns l without the limits that came with later feature levels: those have their
// defaults.
func (l Limits) OfLevel(level uint32) Limits {
	for i := limitsOf(level); i < len(limitTable); i++ {
		limitTable[i].set(&l, 0)
	}
	return l
}

// Limit is one of [Limits], as people and programs name it.
type Limit struct {
	Name     string // as in the settings, without "limits."
	Value    int64
	Default  int64
	Largest  int64 // that is allowed
	Duration bool  // nanoseconds; otherwise a number, or bytes
}

// All returns every limit in the order of the settings.
func (l Limits) All() []Limit {
	all := make([]Limit, len(limitTable))
	for i := range limitTable {
		e := &limitTable[i]
		all[i] = Limit{Name: e.field, Value: e.get(&l), Default: e.def, Largest: e.max, Duration: e.nanos}
	}
	return all
}

// Set changes the limit of a name; 0 means its default. Whether the value is allowed
// Validate says. It returns false if there is no such limit.
func (l *Limits) Set(name string, value int64) bool {
	for i := range limitTable {
		if e := &limitTable[i]; e.field == name {
			e.set(l, value)
			return true
		}
	}
	return false
}
