package limits

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// MemoryConfig is fixed for a Pressure's life.
type MemoryConfig struct {
	Budget int64 // bytes; 0 looks at nothing
	Gate   *Gate
	// Shed gives up clients, those that cost the most first, until about so many bytes are free; also those for which
	// nothing is queued only if all has to go.
	Shed   func(bytes int64, all bool) (clients int, freed int64)
	Logger *zap.Logger
}

const (
	// looksEvery is how often memory is looked at: in that time a fast network cannot fill what is left of a budget
	// that is worth the name. A look takes microseconds.
	looksEvery = 100 * time.Millisecond
	// settle is how long what was freed may take to be seen before more clients are given up.
	settle = 500 * time.Millisecond
)

// Parts of the budget, in percent: above high clients are given up until low is reached; nobody new comes in until
// memory is below enough. What is above high is left to garbage, to what the kernel holds for sockets, and to the
// time that passes until the next look.
const (
	low       = 65
	enough    = 70
	high      = 75
	desperate = 90 // queues are not what it is: clients go for whom nothing is queued
)

// Pressure watches how much of the budget is used and sheds clients before the kernel ends the process.
type Pressure struct {
	cfg     MemoryConfig
	samples []metrics.Sample // owned by Run

	used  atomic.Int64
	short bool      // owned by Run
	shed  time.Time // owned by Run; when clients were last given up
	total int       // owned by Run; clients given up since memory became short
}

// NewPressure returns a Pressure that Run drives.
func NewPressure(cfg MemoryConfig) *Pressure {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	m := &Pressure{cfg: cfg}
	for _, name := range []string{
		"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes", "/memory/classes/heap/free:bytes",
		"/memory/classes/heap/objects:bytes", "/gc/heap/live:bytes",
	} {
		m.samples = append(m.samples, metrics.Sample{Name: name})
	}
	return m
}

// Used is how much was used at the last look.
func (m *Pressure) Used() int64 { return m.used.Load() }

// Run looks until ctx ends.
func (m *Pressure) Run(ctx context.Context) {
	if m.cfg.Budget <= 0 {
		<-ctx.Done()
		return
	}
	ticker := time.NewTicker(looksEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			m.look(time.Now(), m.measure())
		}
	}
}

// measure is what cannot be given back: all that the runtime has from the system, less what it returned or could
// return, and less what has become garbage as far as is known, which is what was found alive by the last collection.
func (m *Pressure) measure() int64 {
	metrics.Read(m.samples)
	at := func(i int) int64 { return int64(m.samples[i].Value.Uint64()) }
	total, released, free, objects, live := at(0), at(1), at(2), at(3), at(4)
	return total - released - free - max(0, objects-live)
}

// look acts on a measurement.
func (m *Pressure) look(now time.Time, used int64) {
	m.used.Store(used)
	part := func(percent int64) int64 { return m.cfg.Budget / 100 * percent }
	switch {
	case used >= part(high):
		if !m.short {
			m.cfg.Logger.Warn("memory is short", zap.Int64("used", used), zap.Int64("limit", m.cfg.Budget),
				zap.String("remedy", m.cfg.Gate.remedy(Memory)))
		}
		m.short = true
		m.cfg.Gate.Short(true)
		if now.Sub(m.shed) < settle {
			return
		}
		clients, freed := m.cfg.Shed(used-part(low), used >= part(desperate))
		m.total += clients
		for range clients {
			m.cfg.Gate.cfg.Count(Shed)
		}
		m.cfg.Logger.Warn("clients given up", zap.Int("clients", clients), zap.Int64("freed", freed), zap.Int64("used", used))
		runtime.GC() // what they held is known to be garbage only after this
		m.shed = time.Now()
	case m.short && used < part(enough):
		m.short = false
		m.cfg.Gate.Short(false)
		m.cfg.Logger.Info("memory is enough again", zap.Int64("used", used), zap.Int("clients_given_up", m.total))
		m.total = 0
	}
}
