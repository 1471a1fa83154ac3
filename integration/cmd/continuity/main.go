// Command continuity runs a real Pointsman under random faults and judges what its clients received, see package
// continuity. It ends with 1 when a promise was broken and with 2 for a bad option.
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

	"github.com/pointsmanhq/pointsman/integration/continuity"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	opts, code := parse(args)
	if code >= 0 {
		return code
	}
	if opts.describe {
		if err := continuity.Describe(opts.Out); err != nil {
			fmt.Fprintln(os.Stderr, "continuity:", err)
			return 1
		}
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the program at once; the kernel ends its children with it
	}()
	fmt.Printf("seed %d\n", opts.Seed)
	began := time.Now()
	opts.Logf = func(format string, args ...any) {
		fmt.Printf("%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
	}
	rep, err := continuity.Do(ctx, opts.Options)
	if err != nil {
		fmt.Fprintln(os.Stderr, "continuity:", err)
		return 1
	}
	rep.Command = command(opts.Options)
	fmt.Printf("\n%s", rep)
	switch {
	case rep.Partial:
		fmt.Println("stopped early: nothing is written")
	case opts.Out != "":
		if err := rep.Write(opts.Out); err != nil {
			fmt.Fprintln(os.Stderr, "continuity:", err)
			return 1
		}
		fmt.Printf("written: %s in %s\n", rep.Name(), opts.Out)
	}
	fmt.Printf("all of it took %s\n", time.Since(began).Round(time.Second))
	switch {
	case len(rep.Failed) > 0:
		return 1
	case rep.Partial:
		return 130
	}
	return 0
}

func or(text, without string) string {
	if text == "" {
		return without
	}
	return text
}

type options struct {
	continuity.Options
	Out      string
	describe bool
}

// command is how the run is made again.
func command(o continuity.Options) string {
	words := []string{fmt.Sprintf("make continuity SECONDS=%d SEED=%d FAULTS=%s", o.Seconds, o.Seed, kinds(o.Kinds))}
	if o.Overlap {
		words = append(words, "OVERLAP=1")
	}
	if o.Clients != defaultClients {
		words = append(words, fmt.Sprintf("CLIENTS=%d", o.Clients))
	}
	var more []string
	if o.Rate != rateFor(o.Clients) {
		more = append(more, fmt.Sprintf("-rate %v", o.Rate))
	}
	if !o.Spare {
		words = append(words, "SPARE=0")
	}
	if o.NoPauses {
		more = append(more, "-no-pauses")
	}
	for _, n := range []struct {
		flag       string
		got, usual int
	}{{"routers", o.Routers, defaultRouters}, {"nodes", o.Nodes, defaultNodes}, {"partitions", int(o.Partitions), defaultPartitions}, {"size", o.Size, defaultSize}, {"quiet", o.Quiet, defaultQuiet}} {
		if n.got != n.usual {
			more = append(more, fmt.Sprintf("-%s %d", n.flag, n.got))
		}
	}
	if len(more) > 0 {
		words = append(words, "ARGS='"+strings.Join(more, " ")+"'")
	}
	return strings.Join(words, " ")
}

func kinds(list []continuity.Kind) string {
	if len(list) == len(continuity.Kinds()) {
		return "all"
	}
	var words []string
	for _, k := range list {
		words = append(words, strings.ReplaceAll(string(k), " ", "-"))
	}
	return strings.Join(words, ",")
}

// rateFor is how many records a second are made for so many clients: one in two and a half seconds for most of them.
func rateFor(clients int) float64 { return float64(clients) * 0.4 }

const (
	defaultClients    = 10_000
	defaultRouters    = 3
	defaultNodes      = 4
	defaultPartitions = 16
	defaultSize       = 128
	defaultQuiet      = 10
)

func parse(args []string) (options, int) {
	var o options
	var faults string
	flags := flag.NewFlagSet("continuity", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "Usage: continuity [flags]\n\nRuns Apache Kafka, etcd, routers and nodes under clients and random faults, and judges what the clients received.\n"+
			"Exit code 0: every promise was kept; 1: one was broken; 2: a bad option; 130: stopped early, and nothing was broken until then.\n\n")
		flags.PrintDefaults()
	}
	flags.IntVar(&o.Seconds, "seconds", 600, "how long faults are made")
	flags.Uint64Var(&o.Seed, "seed", 1, "what is drawn from; 0 takes the time of day")
	flags.StringVar(&faults, "faults", "all", "kinds of faults, with commas between")
	flags.BoolVar(&o.Overlap, "overlap", false, "faults do not wait for the healing of those before; pauses are not judged then")
	flags.IntVar(&o.Clients, "clients", defaultClients, "how many clients")
	flags.Float64Var(&o.Rate, "rate", 0, "records a second; 0 for four in ten seconds per client")
	flags.IntVar(&o.Size, "size", defaultSize, "bytes of a value, about")
	flags.IntVar(&o.Routers, "routers", defaultRouters, "how many routers")
	flags.IntVar(&o.Nodes, "nodes", defaultNodes, "how many nodes at the beginning; up to two more join")
	partitions := flags.Int("partitions", defaultPartitions, "of the topic")
	flags.BoolVar(&o.Spare, "spare", true, "never end the first router and the first node, only freeze them or cut them off")
	flags.BoolVar(&o.NoPauses, "no-pauses", false, "print pauses and do not judge them, for machines that have more to do")
	flags.IntVar(&o.Quiet, "quiet", defaultQuiet, "seconds before the first fault, for comparison")
	flags.StringVar(&o.Bin, "bin", or(os.Getenv("POINTSMAN_BIN"), "bin"), "folder with router and wsnode")
	flags.StringVar(&o.Dir, "dir", "", "folder for logs and data, kept; a temporary one without it")
	flags.StringVar(&o.Out, "out", "", "folder for the report: JSON, plots and a README.md of all that are there")
	flags.BoolVar(&o.describe, "describe", false, "only draw the plots and write the README.md of the reports in -out")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return o, 0
	case err != nil:
		return o, 2
	}
	var err error
	if flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	} else if o.Kinds, err = continuity.ParseKinds(faults); err == nil {
		o.Partitions = int32(*partitions) //nolint:gosec // checked next
		if o.Rate == 0 {
			o.Rate = rateFor(o.Clients)
		}
		if o.Seed == 0 {
			o.Seed = uint64(time.Now().UnixNano()) % 1_000_000 //nolint:gosec // after 1970
		}
		err = o.Check()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "continuity:", err)
		return o, 2
	}
	return o, -1
}
