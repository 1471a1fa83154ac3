// Command bench measures what Pointsman costs beside a floor program, see package bench. It ends with 1 when a sample
// failed and with 2 for a bad option; a bar that is missed is printed, no more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pointsmanhq/pointsman/integration/bench"
	"github.com/pointsmanhq/pointsman/integration/internal/lean"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) == 2 && args[0] == "load" { // a process of clients, started by a benchmark
		return report(lean.Serve(ctx, args[1]))
	}
	o, code := parse(args)
	if code >= 0 {
		return code
	}
	if o.list {
		for _, s := range bench.Scenarios() {
			fmt.Printf("%-22s %s\n", s.Name, s.About)
		}
		return 0
	}
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the program at once; the kernel ends its children with it
	}()
	var old *bench.Report
	var err error
	if o.compare != "" {
		if old, err = bench.Load(o.compare); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 2
		}
	}
	var rep *bench.Report
	if o.of != "" {
		rep, err = bench.Load(o.of)
	} else {
		rep, err = bench.Do(ctx, o.Options)
	}
	if err != nil {
		return report(err)
	}
	if o.of == "" {
		rep.Command = o.command()
	}
	if o.amend != "" {
		later, err := bench.Load(o.amend)
		if err != nil {
			return report(err)
		}
		rep.Amend(later)
	}
	fmt.Printf("\n%s", rep)
	if old != nil {
		fmt.Printf("\n%s", rep.Compare(old))
	}
	if o.json != "" {
		if err := rep.Write(o.json); err != nil {
			return report(err)
		}
	}
	switch {
	case rep.Partial:
		return 130
	case o.out != "":
		if err := rep.Publish(o.out); err != nil {
			return report(err)
		}
	}
	if len(rep.Failures()) > 0 {
		return 1
	}
	return 0
}

func report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

type options struct {
	bench.Options
	names              string
	out, json          string
	compare, of, amend string
	list               bool
}

// command is how the run is made again.
func (o *options) command() string {
	words := []string{"make bench"}
	if o.Full {
		words[0] += "-full"
	}
	if o.names != "" {
		words = append(words, "SCENARIOS='"+o.names+"'")
	}
	if usual := defaults(o.Full); o.Rounds != usual.Rounds || o.Seconds != usual.Seconds {
		words = append(words, fmt.Sprintf("ROUNDS=%d SECONDS=%v", o.Rounds, o.Seconds))
	}
	if o.Scale != 1 {
		words = append(words, fmt.Sprintf("ARGS='-scale %v'", o.Scale))
	}
	return strings.Join(words, " ")
}

func defaults(full bool) bench.Options {
	if full {
		return bench.Options{Rounds: 5, Seconds: 10}
	}
	return bench.Options{Rounds: 1, Seconds: 5}
}

func parse(args []string) (options, int) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "Usage: bench [flags]\n\nMeasures Pointsman beside the cheapest program that could do its work. The machine should have nothing else to do.\n"+
			"Exit code 0: every client received what it was due; 1: something failed; 2: a bad option; 130: stopped early.\n\n")
		flags.PrintDefaults()
	}
	flags.BoolVar(&o.Full, "full", false, "all scenarios, for longer")
	flags.StringVar(&o.names, "scenarios", "", "which, with commas between; a name may end with *")
	flags.IntVar(&o.Rounds, "rounds", 0, "of every scenario; 0 for 1, or 5 of the full run")
	flags.Float64Var(&o.Seconds, "seconds", 0, "of every steady measurement; 0 for 5, or 10 of the full run")
	flags.Float64Var(&o.Scale, "scale", 1, "of clients, rates and records: less to try the benchmark itself")
	kind := flags.String("stack", string(stack.Real), "real: Apache Kafka and etcd; processes: stand-ins inside this process")
	flags.StringVar(&o.Bin, "bin", "bin", "folder with router, wsnode, floor and bench")
	flags.StringVar(&o.Dir, "dir", "", "folder for logs and data, kept; a temporary one without it")
	flags.StringVar(&o.json, "json", "", "file for the report")
	flags.StringVar(&o.out, "out", "", "folder for the report with plots and a README.md")
	flags.StringVar(&o.compare, "compare", "", "an earlier report: print what has changed")
	flags.StringVar(&o.of, "of", "", "print, compare or publish this report, and measure nothing")
	flags.StringVar(&o.amend, "amend", "", "a later report, whose scenarios take the places of the same ones of this")
	flags.BoolVar(&o.list, "list", false, "only list the scenarios")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return o, 0
	case err != nil:
		return o, 2
	}
	usual := defaults(o.Full)
	if o.Rounds == 0 {
		o.Rounds = usual.Rounds
	}
	if o.Seconds == 0 {
		o.Seconds = usual.Seconds
	}
	o.Kind = stack.Kind(*kind)
	o.Logf = func(format string, args ...any) {
		fmt.Printf("%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.Rounds < 1 || o.Seconds <= 0 || o.Scale <= 0 || o.Scale > 1:
		err = errors.New("rounds and seconds are above 0, a scale at most 1")
	case o.Kind != stack.Real && o.Kind != stack.Processes:
		err = fmt.Errorf("a benchmark needs a stack of processes, not %q", o.Kind)
	default:
		o.Scenarios, err = bench.Choose(o.names, o.Full)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return o, 2
	}
	return o, -1
}
