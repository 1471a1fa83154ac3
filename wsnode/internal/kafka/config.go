package kafka

import (
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"
)

// protocolVersion is what requests are shaped for; sarama lowers each to what the broker offers. 3.6 has topic
// ids in metadata, and every request of it is still served by 4.x brokers.
var protocolVersion = sarama.V3_6_0_0

func (cfg Config) withDefaults() (Config, error) {
	if len(cfg.Brokers) == 0 {
		return cfg, errors.New("no kafka brokers given")
	}
	if cfg.Topic == "" {
		return cfg, errors.New("no topic given")
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "pointsman"
	}
	if cfg.FetchMaxBytes <= 0 {
		cfg.FetchMaxBytes = 1 << 20
	}
	if cfg.FetchTotal <= 0 {
		cfg.FetchTotal = 16 << 20
	}
	if cfg.FetchMaxWait <= 0 {
		cfg.FetchMaxWait = 50 * time.Millisecond
	}
	if cfg.NetTimeout <= 0 {
		cfg.NetTimeout = 5 * time.Second
	}
	if cfg.ScanConns <= 0 {
		cfg.ScanConns = 4
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return cfg, nil
}

// base is the part of sarama's configuration that every connection shares.
func (cfg Config) base() (*sarama.Config, error) {
	sc := sarama.NewConfig()
	sc.Version = protocolVersion
	sc.ClientID = cfg.ClientID
	sc.Net.DialTimeout = cfg.NetTimeout
	sc.Net.WriteTimeout = cfg.NetTimeout
	sc.Net.ReadTimeout = cfg.NetTimeout + cfg.FetchMaxWait
	sc.Metadata.AllowAutoTopicCreation = false
	sc.MetricRegistry = unmeasured{}
	if err := Secure(sc, cfg.TLS, cfg.SASL); err != nil {
		return nil, err
	}
	if err := sc.Validate(); err != nil {
		return nil, fmt.Errorf("configure kafka: %w", err)
	}
	return sc, nil
}

// RedirectLog sends sarama's own log lines to logger at debug level. sarama has one logger per process: call it
// once, from main, before the first Open.
func RedirectLog(logger *zap.Logger) {
	std := zap.NewStdLog(logger.Named("sarama"))
	if at, err := zap.NewStdLogAt(logger.Named("sarama"), zap.DebugLevel); err == nil {
		std = at
	}
	sarama.Logger = std
}
