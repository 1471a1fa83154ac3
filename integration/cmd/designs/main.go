// Command designs runs the other ways to bring a Kafka topic to WebSocket clients: one command for each of their
// processes, one that lists the designs, one that runs a whole design, and one that compares them all.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/options"

	"github.com/pointsmanhq/pointsman/integration/designs/arena"
	"github.com/pointsmanhq/pointsman/integration/designs/command"
	"github.com/pointsmanhq/pointsman/integration/designs/compare"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

type commands struct {
	List    list     `cmd:"" help:"List the designs and how each is started."`
	Run     runCmd   `cmd:"" help:"Run a design on a Kafka, an etcd and, where it needs one, a Redis of its own."`
	Compare compared `cmd:"" help:"Do the same work with all designs, and write docs/designs.md and what it rests on."`

	command.Parts `embed:""`
}

func main() { os.Exit(options.Main(command.Description(), &commands{})) }

type list struct{}

// Run prints the list.
func (list) Run(_ context.Context, env options.Env) error {
	for _, d := range arena.Designs() {
		if _, err := fmt.Fprintf(env.Stdout, "%-31s %s\n%-31s bin/designs run %s --servers=2\n", d.Name, d.Says, "", d.Name); err != nil {
			return err
		}
	}
	return nil
}

type runCmd struct {
	Design     string `arg:"" help:"One of those that list names."`
	Servers    int    `default:"2" help:"How many servers."`
	Others     int    `default:"0" help:"How many routers or redistributors; 0 for one beside two servers."`
	Partitions int32  `default:"8" help:"Of the topic."`
	Topic      string `default:"records" help:"The topic, which is created."`
	Bin        string `default:"bin" help:"Folder with router, wsnode and designs."`
}

// Run runs a design until it is told to stop.
func (c *runCmd) Run(ctx context.Context, env options.Env) (err error) {
	d, err := arena.Find(c.Design)
	if err != nil {
		return options.Usagef("%w", err)
	}
	dir, err := compare.Temporary()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	back, err := stack.OpenBackend(ctx, stack.Real, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back.Close()) }()
	redis := ""
	if d.Cache {
		cache, err := compare.OpenCache(ctx, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, cache.Close()) }()
		redis = cache.Addr()
	}
	if err := back.CreateTopic(ctx, c.Topic, c.Partitions); err != nil {
		return err
	}
	if c.Bin, err = filepath.Abs(c.Bin); err != nil {
		return err
	}
	a, err := arena.Open(ctx, arena.Options{
		Design: c.Design, Servers: c.Servers, Others: c.Others, Kafka: back.Kafka(), Etcd: back.Etcd(), Redis: redis, Topic: c.Topic,
		Partitions: c.Partitions, Launch: arena.Processes{Bin: c.Bin}, Bin: c.Bin, Dir: filepath.Join(dir, "logs"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	fmt.Fprintf(env.Stdout, "%s serves topic %s of Kafka %s\n\n", d.Title, c.Topic, strings.Join(back.Kafka(), ","))
	for _, t := range a.Entrances() {
		fmt.Fprintf(env.Stdout, "clients    %s/v1/ws?key=alice\n", t.URL)
	}
	for _, m := range a.Members() {
		fmt.Fprintf(env.Stdout, "%-10s %s, pid %d, metrics %s/metrics\n", m.Role, m.Name, m.PID, m.Admin)
	}
	fmt.Fprintf(env.Stdout, "\nwrite to it: %s/wsnode produce --kafka=%s --topic=%s --help\nInterrupt ends it.\n", c.Bin, strings.Join(back.Kafka(), ","), c.Topic)
	<-ctx.Done()
	ending, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), 30*time.Second, errors.New("not within 30 s"))
	defer cancel()
	return a.Shutdown(ending)
}

type compared struct {
	Quick   bool     `help:"A few minutes: small sizes, no figures worth telling."`
	Rounds  int      `default:"2" help:"How often everything is measured."`
	Designs []string `help:"Only these."`
	Faults  []string `default:"all" help:"Which faults: all, none, or names."`
	Growth  bool     `default:"true" negatable:"" help:"Measure the sizes."`
	Out     string   `help:"Folder for compare.json and the plots; the page is written beside it. Nothing is written without."`
	Page    bool     `help:"Measure nothing: write the page of the compare.json that is in --out."`
	Bar     bool     `help:"Measure nothing: have every design deliver 100,000 records to 1,000 clients, and judge that."`
	Bin     string   `default:"bin" help:"Folder with router, wsnode and designs."`
}

// Run compares.
func (c *compared) Run(ctx context.Context, env options.Env) (err error) {
	if c.Page {
		return compare.Page(c.Out)
	}
	o := compare.Options{
		Designs: c.Designs, Rounds: c.Rounds, Rate: 5000, Size: 128, Seconds: 6, FaultClients: 1000, FaultRate: 1000, Bin: c.Bin, Faults: compare.AllFaults(),
		Cells: append(compare.Cells(1000, 1, 2, 4, 8), compare.Cells(10_000, 1, 2, 4)...),
		Logf: func(format string, args ...any) {
			fmt.Fprintf(env.Stdout, "%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
		},
	}
	if c.Quick {
		o.Quick, o.Rounds, o.Rate, o.Seconds, o.FaultClients, o.FaultRate = true, 1, 500, 2, 100, 200
		o.Cells = compare.Cells(200, 1, 2, 4)
		o.Faults = []string{compare.KillServer, compare.LoseCache}
	}
	if strings.Join(c.Faults, ",") != "all" {
		o.Faults = c.Faults
	}
	if strings.Join(c.Faults, ",") == "none" {
		o.Faults = nil
	}
	if !c.Growth {
		o.Cells = nil
	}
	if c.Bar {
		o.Rounds, o.Faults, o.Cells = 1, nil, compare.Cells(1000, 2)
		o.Seconds = 21 // at 5,000 a second: a little more than it asks for
	}
	if len(o.Designs) == 0 {
		o.Designs = arena.Names()
	}
	if o.Dir, err = compare.Temporary(); err != nil {
		return err
	}
	rep, err := compare.Do(ctx, o)
	if err != nil {
		return fmt.Errorf("%w (logs in %s)", err, o.Dir)
	}
	rep.Command = "make compare"
	if c.Quick {
		rep.Command += " QUICK=1"
	}
	fmt.Fprintf(env.Stdout, "\n%s\nall of it took %.0f s\n", rep, rep.Took)
	if err := rep.Write(filepath.Join(o.Dir, "compare.json")); err != nil { // for whoever looks into what went wrong
		return err
	}
	if c.Out != "" && (c.Quick || rep.Err() == nil) {
		if err := rep.Publish(c.Out); err != nil {
			return err
		}
	}
	err = rep.Err()
	if c.Bar {
		err = rep.Bar(o.Designs)
	}
	if err != nil {
		return fmt.Errorf("%w (logs in %s)", err, o.Dir)
	}
	return os.RemoveAll(o.Dir)
}
