// Package doctor examines what a node depends on, and the settings it would run with, and says of each thing that is
// wrong what to do about it. It changes nothing.
package doctor

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // works, but not as well as it could, or not for long
	Wrong   Level = "wrong"   // clients miss records, or the node cannot work
	Skipped Level = "skipped" // could not be examined
)

// Finding is the outcome of one check, and fits on one line.
type Finding struct {
	Level Level  `json:"level"`
	Check string `json:"check"`
	Text  string `json:"text"`
	// Remedy is what to do; empty where nothing is.
	Remedy string `json:"remedy,omitempty"`
}

// Config is what a node would run with.
type Config struct {
	Kafka       kafka.Config
	Etcd        etcdmap.Config
	Group       string
	Partitioner string

	GroupSessionTimeout time.Duration
	EtcdLease           time.Duration
	LinkStall           time.Duration
	DrainTimeout        time.Duration
	ProducerMetadataAge time.Duration // 0: not compared with anything
	Ring                int64
	FetchMaxBytes       int64
	Listen, Advertise   string
	Refused             error // why a node would not start with its settings

	Records      int           // how many of the newest records are looked at
	Patience     time.Duration // for one answer
	HangingAfter time.Duration // an open transaction that wrote nothing for so long counts as hanging
}

// Examine makes all checks, in an order in which each may build on those before, and tells every finding as it is made.
func Examine(ctx context.Context, cfg Config, tell func(Finding)) {
	if cfg.Kafka.Logger == nil {
		cfg.Kafka.Logger = zap.NewNop()
	}
	if cfg.Etcd.Logger == nil {
		cfg.Etcd.Logger = zap.NewNop()
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 3 * time.Second
	}
	if cfg.HangingAfter <= 0 {
		cfg.HangingAfter = time.Minute
	}
	if cfg.Records <= 0 {
		cfg.Records = 2000
	}
	d := &doctor{cfg: cfg, tell: tell, now: time.Now}
	d.settings()
	d.etcd(ctx)
	d.kafka(ctx)
	d.timings()
	d.clocks(ctx)
	d.files()
}

type doctor struct {
	cfg  Config
	tell func(Finding)
	now  func() time.Time

	picture  *etcdmap.Picture // nil while etcd does not answer
	etcdTook time.Duration    // of one write, 0 if there was none
	state    *kafka.State     // nil while Kafka does not answer
	future   time.Duration    // how far the newest record's time lies ahead of ours
}

func (d *doctor) ok(check, format string, args ...any) {
	d.tell(Finding{Level: OK, Check: check, Text: fmt.Sprintf(format, args...)})
}

func (d *doctor) skip(check, format string, args ...any) {
	d.tell(Finding{Level: Skipped, Check: check, Text: fmt.Sprintf(format, args...)})
}

func (d *doctor) warn(check, text, remedy string) {
	d.tell(Finding{Level: Warning, Check: check, Text: text, Remedy: remedy})
}

func (d *doctor) wrong(check, text, remedy string) {
	d.tell(Finding{Level: Wrong, Check: check, Text: text, Remedy: remedy})
}

// ask bounds one question.
func (d *doctor) ask(ctx context.Context, question func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Patience)
	defer cancel()
	return question(ctx)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
