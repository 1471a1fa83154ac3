package main

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/router"
	"github.com/pointsmanhq/pointsman/router/internal/limits"
)

// limitOptions say what clients may take.
type limitOptions struct {
	MaxClients    int          `default:"0" placeholder:"N" group:"Limits" help:"Clients at a time; one more gets 503. 0: what the limit of open files leaves beside links, etcd and operators."`
	MaxPerAddress int          `name:"max-clients-per-address" default:"0" placeholder:"N" group:"Limits" help:"Clients at a time of one address (IPv6: of one /64); one more gets 429. 0: three quarters of --max-clients."`
	MaxPerKey     int          `name:"max-clients-per-key" default:"0" placeholder:"N" group:"Limits" help:"Sockets at a time of one client key. 0: any number, and 1 where --key-policy is not fan-out."`
	KeyPolicy     string       `default:"fan-out" enum:"fan-out,newest,oldest" group:"Limits" help:"What happens when a key has as many sockets as it may: the new one gets 429 (fan-out, oldest), or the oldest one is closed with 4011 (newest). With fan-out each socket gets every record."`
	MaxHandshakes int          `default:"0" placeholder:"N" group:"Limits" help:"Connections that have not sent their request yet; one more, and the one that has been silent longest gets 503. 0: 4096, or a quarter of the limit of open files where that is less."`
	HandshakeRate int          `default:"0" placeholder:"N" group:"Limits" help:"Requests per second; those beyond it wait for their turn. 0: 4000 for each processor, 1000 with TLS or tokens."`
	Queue         int          `name:"handshake-queue" default:"0" placeholder:"N" group:"Limits" help:"Requests that may wait for their turn; one more gets 503. 0: 1000 for each processor, or what one second serves where that is less."`
	AddressRate   int          `name:"handshake-rate-per-address" default:"0" placeholder:"N" group:"Limits" help:"Requests per second of one address (IPv6: of one /64); those beyond it wait, too, and get 429 where that would take longer than the queue is. 0: three quarters of --handshake-rate."`
	Head          options.Size `name:"client-head" default:"32KiB" group:"Limits" help:"Size of a request's head; a larger one gets 431. A long cursor can come as a message."`
	Message       options.Size `name:"client-message" default:"128KiB" group:"Limits" help:"Size of a client's message, 128KiB at most; a larger one closes with 1009."`
	MessageRate   int          `name:"client-message-rate" default:"20" placeholder:"N" group:"Limits" help:"Messages, pings and other frames that a client may send per second, five seconds' worth at once; more close with 4012. 0: any number."`
	CatchUpRate   options.Size `name:"client-catchup-rate" default:"16MiB" group:"Limits" help:"Bytes per second that one client may be sent; beyond it the client is behind, and catches up. 0: any number."`
	Memory        options.Size `name:"memory-limit" default:"0" group:"Limits" help:"Memory to keep within: when three quarters are used, new clients get 503, and those for which the most is queued are closed with 4005. 0: GOMEMLIMIT if it is set, else two thirds of the control group's limit, else three quarters of the machine's memory."`

	TrustedProxies []string `placeholder:"NETWORK" group:"Limits" help:"Addresses and networks of proxies before this router, for instance 10.0.0.0/8. They are believed when they name another address as the client's."`
	ProxyHeader    string   `default:"X-Forwarded-For" enum:"X-Forwarded-For,Forwarded,X-Real-IP" group:"Limits" help:"Where those proxies name it; other headers are not looked at."`
}

// check refuses numbers that mean nothing.
func (o *limitOptions) check() error {
	for _, n := range []struct {
		name  string
		value int
	}{
		{"max-clients", o.MaxClients}, {"max-clients-per-address", o.MaxPerAddress}, {"max-clients-per-key", o.MaxPerKey},
		{"max-handshakes", o.MaxHandshakes}, {"handshake-rate", o.HandshakeRate}, {"handshake-queue", o.Queue},
		{"handshake-rate-per-address", o.AddressRate}, {"client-message-rate", o.MessageRate},
	} {
		if n.value < 0 {
			return fmt.Errorf("--%s must not be negative", n.name)
		}
	}
	switch {
	case o.Head < 4<<10:
		return errors.New("--client-head must be at least 4KiB")
	case o.Message < 1<<10 || o.Message > 128<<10:
		return errors.New("--client-message must be between 1KiB and 128KiB")
	case o.CatchUpRate != 0 && o.CatchUpRate < 16<<10:
		return errors.New("--client-catchup-rate must be at least 16KiB, or 0")
	case o.Memory != 0 && o.Memory < 32<<20:
		return errors.New("--memory-limit must be at least 32MiB")
	}
	_, err := limits.ParseProxies(o.TrustedProxies, o.ProxyHeader)
	return err
}

// apply puts the settings into cfg, in which 0 would be the default where here it is any number.
func (o *limitOptions) apply(cfg *router.Config) {
	number := func(n int64) int64 {
		if n == 0 {
			return -1
		}
		return n
	}
	cfg.Limits = router.Limits{
		Clients: o.MaxClients, ClientsPerAddress: o.MaxPerAddress, ClientsPerKey: o.MaxPerKey, KeyPolicy: o.KeyPolicy,
		Handshakes: o.MaxHandshakes, HandshakeRate: o.HandshakeRate, HandshakeQueue: o.Queue, AddressRate: o.AddressRate,
		Head: int(o.Head), Message: int64(o.Message), MessageRate: int(number(int64(o.MessageRate))),
		CatchUpRate: number(int64(o.CatchUpRate)), TrustedProxies: o.TrustedProxies, ProxyHeader: o.ProxyHeader,
	}
}

// claim finds what the system allows: open files up to the hard limit, and memory up to the budget. The returned
// function puts the budget in force, once the settings are known to be good, and tells the log.
func (o *limitOptions) claim(cfg *router.Config) (settle func(log *zap.Logger)) {
	files, err := limits.RaiseOpenFiles()
	budget, why := limits.Budget(int64(o.Memory))
	cfg.Limits.Memory = budget
	return func(log *zap.Logger) {
		if err != nil {
			log.Warn("limit of open files stays low", zap.Uint64("open_files", files), zap.Error(err))
		}
		limits.Keep(budget)
		log.Info("memory budget", zap.Int64("bytes", budget), zap.String("because_of", why))
	}
}
