"""Topology operations: they compare the topology that routers require with the broker's topology.

- `required`: the topology that the routers of one or more services require.
- `broker_state`: the broker's exchanges, queues, bindings and policies, read over the management
  API.
- `policies`: the policy that applies to a queue, and the smaller one of two limits.
- `diff`: the differences between the required topology and the broker's topology.
- `apply`: declaration of missing exchanges, queues and bindings.
- `verify`: comparison when a service starts. It declares nothing.
- `definitions`: the required topology as the definitions file that RabbitMQ imports.
- `permissions`: the permissions of each service at the broker, derived from the service's grants.
- `user_passwords`: the passwords of the broker users.
- `migrate`: recreation of a queue with other arguments. The queue keeps its messages.
- `old_objects`: the queues and exchanges that the routers of a service do not declare any more.
- `prune_model`, `prune_decisions`, `prune_work_queues`: the next step for each old object, as pure
  functions of the observed state.
- `prune`: deletion of old objects. No event, job or dead letter is deleted.
"""
