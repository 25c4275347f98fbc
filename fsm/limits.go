package fsm

// Limits bound everything that grows. They are part of the replicated state and
// change only by [Configure]. A zero field means its default.
type Limits struct {
	NameBytes        int   // lock name, UTF-8, at least 1 byte; default 512
	ValueBytes       int   // default 4096
	HolderBytes      int   // default 128
	Labels           int   // per session or grant; default 32
	LabelBytes       int   // key and value together; default 256
	LocksPerRequest  int   // default 64
	WaitersPerLock   int   // default 10,000
	Waiters          int   // in all; default 200,000
	GrantsPerSession int   // default 10,000
	RequestsWindow   int   // answers remembered per session; default 10,000
	Sessions         int   // default 100,000
	Grants           int   // in all; default 2,000,000
	OnceRemembered   int   // sessionless answers remembered; default 65,536
	OnceNanos        int64 // how long they are remembered; default 5 minutes
	MinTTL           int64 // nanoseconds; default 1 s
	MaxTTL           int64 // nanoseconds; default 24 h
	MaxWait          int64 // wait of a request without a session, nanoseconds; default 1 h
	MaxDelay         int64 // delay after a loss, nanoseconds; default 10 minutes
	ReasonBytes      int   // reason and who, each; default 256
	ExpiriesPerEntry int   // what is due beyond this waits for the next entry; default 1,024
}
