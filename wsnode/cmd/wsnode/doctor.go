package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/pkg/options"

	"github.com/pointsmanhq/pointsman/wsnode/internal/doctor"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
)

// doctorCmd examines what a node with the same settings would depend on.
type doctorCmd struct {
	serve `embed:""`

	Output       string        `short:"o" default:"table" enum:"table,json" placeholder:"FORMAT" help:"table for people, json for programs."`
	Records      int           `default:"2000" placeholder:"N" help:"How many of the newest records are compared with the partitioner."`
	Patience     time.Duration `default:"3s" placeholder:"DURATION" help:"How long each broker, etcd and node may take to answer."`
	HangingAfter time.Duration `default:"1m" placeholder:"DURATION" help:"How long an open transaction may write nothing before it counts as hanging."`
}

// Validate takes what a node would refuse: that is a finding.
func (d *doctorCmd) Validate() error {
	if d.Records < 1 || d.Patience <= 0 || d.HangingAfter <= 0 {
		return options.Usagef("--records, --patience and --hanging-after must be more than 0")
	}
	return nil
}

// Run examines everything once; it fails when something is wrong.
func (d *doctorCmd) Run(ctx context.Context, env options.Env) error {
	cfg, err := d.examination()
	if err != nil {
		return err
	}
	colours := d.Output == "table" && os.Getenv("NO_COLOR") == "" && terminal(env)
	wrong, checks := 0, 0
	var all []doctor.Finding
	var failed error
	doctor.Examine(ctx, cfg, func(f doctor.Finding) {
		checks++
		if f.Level == doctor.Wrong {
			wrong++
		}
		if d.Output == "json" {
			all = append(all, f)
			return
		}
		if _, err := fmt.Fprintln(env.Stdout, line(f, colours)); err != nil && failed == nil {
			failed = err
		}
	})
	if d.Output == "json" {
		enc := json.NewEncoder(env.Stdout)
		enc.SetIndent("", "  ")
		failed = enc.Encode(all)
	}
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: %w", ctx.Err())
	case wrong == 1:
		return fmt.Errorf("one of %d findings is wrong", checks)
	case wrong > 1:
		return fmt.Errorf("%d of %d findings are wrong", wrong, checks)
	}
	return nil
}

// line is a finding as a person reads it.
func line(f doctor.Finding, colours bool) string {
	level := string(f.Level)
	switch f.Level {
	case doctor.Wrong:
		level = "WRONG"
	case doctor.Skipped:
		level = "-"
	}
	pad := strings.Repeat(" ", max(0, len("warning")-len(level)))
	if code := map[doctor.Level]string{doctor.Wrong: "1;31", doctor.Warning: "33", doctor.OK: "32"}[f.Level]; colours && code != "" {
		level = "\x1b[" + code + "m" + level + "\x1b[0m"
	}
	text := printable(f.Text)
	if f.Remedy != "" {
		text += ". Remedy: " + printable(f.Remedy)
	}
	return fmt.Sprintf("%s%s  %-14s  %s", level, pad, f.Check, text)
}

// printable keeps what others wrote from steering the terminal, and a finding on its line.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

func terminal(env options.Env) bool {
	f, ok := env.Stdout.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (d *doctorCmd) examination() (doctor.Config, error) {
	s := &d.serve
	cfg, err := s.config(nil)
	if err != nil {
		return doctor.Config{}, err
	}
	group := cfg.Group
	if group == "" {
		group = "pointsman-" + cfg.Topic
	}
	return doctor.Config{
		Kafka: kafka.Config{
			Brokers: cfg.Kafka, Topic: cfg.Topic, ClientID: "pointsman-doctor", TLS: cfg.KafkaTLS, SASL: kafka.SASL(cfg.KafkaSASL),
			NetTimeout: d.Patience,
		},
		Etcd: etcdmap.Config{
			Endpoints: cfg.Etcd, Prefix: cfg.EtcdPrefix, Topic: cfg.Topic, TLS: cfg.EtcdTLS, Username: cfg.EtcdUser, Password: cfg.EtcdPassword,
		},
		Group: group, Partitioner: cfg.Partitioner,
		GroupSessionTimeout: cfg.GroupSessionTimeout, EtcdLease: cfg.EtcdLease, LinkStall: cfg.LinkStallTimeout, DrainTimeout: cfg.DrainTimeout,
		ProducerMetadataAge: cfg.ProducerMetadataAge,
		Ring:                cfg.Ring, FetchMaxBytes: cfg.FetchMaxBytes, Listen: cfg.Listen, Advertise: cfg.Advertise,
		Refused: s.Validate(), Records: d.Records, Patience: d.Patience, HangingAfter: d.HangingAfter,
	}, nil
}
