"""The load agent in the cluster (:mod:`.agent`) and the runner's side of it (:mod:`.control`)."""
