"""The backend for the kernel's legacy tables, through python-iptables."""
