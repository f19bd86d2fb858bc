"""The backend for nftables, through `nft`."""
